//! The shortest program that still fails, as far as a little time allows to find it.

use std::time::Duration;

use semel_kernel::clock::Stopwatch;

use super::program::Line;

/// Leaves out parts of `program`, large ones first, for as long as the rest still `fails`. `program` itself does.
///
/// What is left out leaves its time behind, so that deadlines stay where they were.
pub fn shorten(program: Vec<Line>, within: Duration, fails: impl Fn(&[Line]) -> bool) -> Vec<Line> {
    let watch = Stopwatch::start();
    let mut program = program;
    let mut size = program.len().div_ceil(2);
    while size > 0 && watch.elapsed() < within {
        let mut begin = 0;
        let mut shorter = false;
        while begin < program.len() && watch.elapsed() < within {
            let rest = without(&program, begin, size);
            if !rest.is_empty() && fails(&rest) {
                program = rest;
                shorter = true;
            } else {
                begin += size;
            }
        }
        if size == 1 && !shorter {
            break;
        }
        size = if size == 1 { 1 } else { size / 2 };
    }
    program
}

fn without(program: &[Line], begin: usize, size: usize) -> Vec<Line> {
    let end = (begin + size).min(program.len());
    let gap: u64 = program[begin..end].iter().map(|line| line.after_ms).sum();
    let mut rest = program[..begin].to_vec();
    rest.extend_from_slice(&program[end..]);
    if let Some(next) = rest.get_mut(begin) {
        next.after_ms += gap;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::super::program::Step;
    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out_and_its_time_stays() {
        let look = |order| Line { after_ms: 10, step: Step::Look { order } };
        let program: Vec<Line> = (0..100).map(look).collect();
        let matters = |line: &Line, n: u16| line.step == Step::Look { order: n };
        let fails = |lines: &[Line]| [17, 71].iter().all(|n| lines.iter().any(|line| matters(line, *n)));
        let short = shorten(program, Duration::from_secs(10), fails);
        assert_eq!(short.len(), 2);
        assert_eq!((short[0].after_ms, short[1].after_ms), (180, 540));
    }
}
