use std::os::unix::fs::symlink;
use std::sync::Mutex;

use super::*;
use crate::conf::Problem;
use crate::key::PublicKey;
use crate::peer::Peer;
use crate::peer::testing::{key, peer, peers};

const SOON: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(60);
const OLD: &str = "[Interface]\nListenPort = 51820\n";

struct Place {
    folder: tempfile::TempDir,
    paths: ConfPath,
}

impl Place {
    fn new(content: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = ConfPath { file: folder.path().join("wg0.conf"), lock: folder.path().join("run/wg0.lock") };
        fs::write(&paths.file, content).unwrap();
        Self { folder, paths }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.paths.file).unwrap()
    }

    /// The names beside the file.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(&self, wanted: &[Peer]) -> Result<Written, FileError> {
        update(&self.paths, SOON, |conf| conf.with_ours(wanted))
    }

    fn keys(&self) -> Vec<PublicKey> {
        read(&self.paths.file).unwrap().ours().into_iter().map(|seen| seen.public_key).collect()
    }

    fn mode(&self) -> u32 {
        fs::metadata(&self.paths.file).unwrap().mode() & 0o7777
    }
}

#[test]
fn the_file_is_replaced_once_and_left_alone_when_it_is_right() {
    let place = Place::new(OLD);
    assert!(place.write(&peers([1, 2])).unwrap().changed);
    let first = fs::metadata(&place.paths.file).unwrap();
    assert!(!place.write(&peers([2, 1])).unwrap().changed);
    assert!(is_same(&first, &fs::metadata(&place.paths.file).unwrap()));
    assert!(place.text().starts_with(OLD));
    assert_eq!(place.keys(), [key(1), key(2)]);
    assert_eq!(place.names(), ["run", "wg0.conf"]);
    assert_eq!(fs::metadata(&place.paths.lock).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(place.folder.path().join("run")).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn only_the_owner_can_read_it_afterwards() {
    let place = Place::new(OLD);
    fs::set_permissions(&place.paths.file, Permissions::from_mode(0o644)).unwrap();
    assert!(place.write(&[]).unwrap().changed, "what everybody can read is not right");
    assert_eq!(place.mode(), 0o600);
    assert_eq!(place.text(), OLD);
    assert!(!place.write(&[]).unwrap().changed);
}

#[test]
fn a_file_that_is_not_there_is_made() {
    let place = Place::new(OLD);
    fs::remove_file(&place.paths.file).unwrap();
    assert!(!place.write(&[]).unwrap().changed);
    assert!(!place.paths.file.exists());
    assert!(place.write(&peers([1])).unwrap().changed);
    assert_eq!((place.keys(), place.mode()), (vec![key(1)], 0o600));
}

#[test]
fn a_person_who_saves_the_file_meanwhile_is_heard() {
    let place = Place::new(OLD);
    let mut runs = 0;
    let written = update(&place.paths, SOON, |conf| {
        runs += 1;
        if runs == 1 {
            fs::write(&place.paths.file, format!("{OLD}# mine\n")).unwrap();
        }
        conf.with_ours(&peers([1]))
    });
    assert!(written.unwrap().changed);
    assert_eq!(runs, 2);
    assert!(place.text().starts_with(&format!("{OLD}# mine\n# semel: begin")));

    runs = 0;
    let never = update(&place.paths, SOON, |conf| {
        runs += 1;
        fs::write(&place.paths.file, format!("{OLD}# {runs}\n")).unwrap();
        conf.with_ours(&peers([2]))
    });
    assert!(matches!(never, Err(FileError::KeepsChanging { .. })));
    assert_eq!(place.text(), format!("{OLD}# {TRIES}\n"));
    assert_eq!(place.names(), ["run", "wg0.conf"]);
}

#[test]
fn a_person_who_made_the_file_meanwhile_is_heard() {
    let place = Place::new(OLD);
    fs::remove_file(&place.paths.file).unwrap();
    let mut runs = 0;
    let written = update(&place.paths, SOON, |conf| {
        runs += 1;
        if runs == 1 {
            fs::write(&place.paths.file, OLD).unwrap();
        }
        conf.with_ours(&peers([1]))
    });
    assert!(written.unwrap().changed);
    assert!(place.text().starts_with(OLD));
}

/// Fails at one place, and notes them all.
struct FailAt {
    place: &'static str,
    seen: Mutex<Vec<&'static str>>,
}

impl FailAt {
    fn new(place: &'static str) -> Self {
        Self { place, seen: Mutex::new(Vec::new()) }
    }
}

impl Steps for FailAt {
    fn at(&self, place: &'static str) -> io::Result<()> {
        self.seen.lock().unwrap().push(place);
        if place == self.place { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

#[test]
fn a_step_that_fails_leaves_the_old_file_or_the_new_one_and_nothing_beside_it() {
    let all = Place::new(OLD);
    let nowhere = FailAt::new("");
    update_with(&all.paths, SOON, |conf| conf.with_ours(&peers([1])), &nowhere).unwrap();
    let whole = all.text();
    let places = nowhere.seen.into_inner().unwrap();
    assert_eq!(places, PLACES[..10]);

    for at in places {
        let place = Place::new(OLD);
        let error = update_with(&place.paths, SOON, |conf| conf.with_ours(&peers([1])), &FailAt::new(at)).unwrap_err();
        assert!(matches!(error, FileError::Io { .. }), "{at}: {error}");
        let is_new = matches!(at, "rename.after" | "dirsync.before" | "dirsync.after");
        assert_eq!(place.text(), if is_new { whole.as_str() } else { OLD }, "{at}");
        assert_eq!(place.names(), ["run", "wg0.conf"], "{at}");
        // The next run mends it.
        assert_eq!(place.write(&peers([1])).unwrap().changed, !is_new, "{at}");
        assert_eq!(place.text(), whole, "{at}");
    }
}

#[test]
fn what_dead_runs_left_behind_is_deleted_and_what_others_put_there_stays() {
    let place = Place::new(OLD);
    let beside = |name: &str| place.folder.path().join(name);
    for name in
        [".wg0.conf.semel-4711-0", ".wg0.conf.semel-1-99", ".wg0.conf.semel-notes", ".wg1.conf.semel-1-1", "wg0.conf~"]
    {
        fs::write(beside(name), "PresharedKey = x").unwrap();
    }
    place.write(&[]).unwrap();
    assert_eq!(place.names(), [".wg0.conf.semel-notes", ".wg1.conf.semel-1-1", "run", "wg0.conf", "wg0.conf~"]);
}

#[test]
fn a_link_at_the_temporary_name_is_not_followed() {
    let place = Place::new(OLD);
    let victim = place.folder.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let next = NUMBER.load(Ordering::Relaxed);
    for number in next..next + 100 {
        let name = format!(".wg0.conf.semel-{}-{number}", std::process::id());
        symlink(&victim, place.folder.path().join(name)).unwrap();
    }
    assert!(place.write(&peers([1])).unwrap().changed);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(place.keys(), [key(1)]);
    assert!(!fs::symlink_metadata(&place.paths.file).unwrap().file_type().is_symlink());

    // Planted behind our sweeping.
    let mut planted = false;
    let written = update(&place.paths, SOON, |conf| {
        if !planted {
            planted = true;
            let next = NUMBER.load(Ordering::Relaxed);
            for number in next..next + 1_000 {
                let name = format!(".wg0.conf.semel-{}-{number}", std::process::id());
                symlink(&victim, place.folder.path().join(name)).unwrap();
            }
        }
        conf.with_ours(&peers([1, 2]))
    });
    assert!(matches!(written, Err(FileError::Unsafe { .. })), "{written:?}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(place.keys(), [key(1)]);
}

#[test]
fn a_link_at_the_lock_or_at_the_file_is_refused() {
    let place = Place::new(OLD);
    let victim = place.folder.path().join("victim");
    fs::write(&victim, OLD).unwrap();
    fs::create_dir(place.folder.path().join("run")).unwrap();
    for target in [victim.clone(), place.folder.path().join("nothing-there")] {
        symlink(&target, &place.paths.lock).unwrap();
        let refused = place.write(&peers([1])).unwrap_err();
        assert!(refused.to_string().contains("wg0.lock: this is a symbolic link where the lock shall be"), "{refused}");
        fs::remove_file(&place.paths.lock).unwrap();
    }
    assert!(!place.folder.path().join("nothing-there").exists());

    fs::remove_file(&place.paths.file).unwrap();
    symlink(&victim, &place.paths.file).unwrap();
    let refused = place.write(&peers([1])).unwrap_err();
    assert!(refused.to_string().contains("wg0.conf: this is a symbolic link; name the file"), "{refused}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), OLD);

    fs::remove_file(&place.paths.file).unwrap();
    fs::create_dir(&place.paths.file).unwrap();
    assert!(matches!(place.write(&peers([1])), Err(FileError::Unsafe { why: "this is not a plain file", .. })));
}

#[test]
fn a_lock_of_another_user_is_refused_and_a_lock_that_others_can_open_is_closed_to_them() {
    let place = Place::new(OLD);
    place.write(&[]).unwrap();
    fs::set_permissions(&place.paths.lock, Permissions::from_mode(0o666)).unwrap();
    place.write(&peers([1])).unwrap();
    assert_eq!(fs::metadata(&place.paths.lock).unwrap().mode() & 0o777, 0o600);

    // Only root can give a file away; for anybody else there is nothing to plant.
    if std::os::unix::fs::chown(&place.paths.lock, Some(65_534), None).is_ok() {
        let refused = place.write(&[]).unwrap_err();
        assert!(refused.to_string().contains("belongs to another user"), "{refused}");
        assert_eq!(place.keys(), [key(1)]);
    }
}

#[test]
fn root_leaves_the_file_to_its_owner() {
    let place = Place::new(OLD);
    if std::os::unix::fs::chown(&place.paths.file, Some(65_534), Some(65_534)).is_err() {
        return; // Only root can.
    }
    place.write(&peers([1])).unwrap();
    let meta = fs::metadata(&place.paths.file).unwrap();
    assert_eq!((meta.uid(), meta.gid(), place.mode()), (65_534, 65_534, 0o600));
}

#[test]
fn a_directory_in_which_everybody_may_rename_is_refused() {
    let place = Place::new(OLD);
    let set = |mode| fs::set_permissions(place.folder.path(), Permissions::from_mode(mode)).unwrap();
    set(0o777);
    let refused = place.write(&peers([1])).unwrap_err();
    assert!(matches!(refused, FileError::Unsafe { .. }), "{refused}");
    set(0o700);
    fs::create_dir(place.folder.path().join("run")).unwrap();
    fs::set_permissions(place.folder.path().join("run"), Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(place.write(&peers([1])), Err(FileError::Unsafe { .. })));
    fs::set_permissions(place.folder.path().join("run"), Permissions::from_mode(0o1777)).unwrap();
    assert!(place.write(&peers([1])).unwrap().changed);
}

#[test]
fn a_lock_that_is_held_is_waited_for_and_then_given_up() {
    let place = Place::new(OLD);
    place.write(&[]).unwrap();
    let held = File::options().write(true).open(&place.paths.lock).unwrap();
    held.lock().unwrap();
    let busy = place.write(&peers([1])).unwrap_err();
    assert!(matches!(busy, FileError::Busy { .. }), "{busy}");
    assert_eq!(place.text(), OLD);
    thread::scope(|scope| {
        let late = scope.spawn(|| update(&place.paths, LONG, |conf| conf.with_ours(&peers([1]))));
        held.unlock().unwrap();
        assert!(late.join().unwrap().unwrap().changed);
    });
}

#[test]
fn writers_at_once_do_not_lose_what_the_other_wrote_and_readers_see_a_whole_file() {
    const EACH: u32 = 20;
    let place = Place::new(OLD);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3_u32)
            .map(|writer| {
                let paths = &place.paths;
                scope.spawn(move || {
                    for n in 0..EACH {
                        let one = peer(writer * 1_000 + n);
                        let add = |conf: &Conf| {
                            let mut all: Vec<Peer> = conf.ours().iter().map(|seen| seen.as_wanted()).collect();
                            all.push(one.clone());
                            conf.with_ours(&all)
                        };
                        assert!(update(paths, LONG, add).unwrap().changed);
                    }
                })
            })
            .collect();
        let mut most = 0;
        while !writers.iter().all(|writer| writer.is_finished()) {
            let conf = read(&place.paths.file).unwrap();
            assert!(conf.whole());
            assert!(conf.ours().len() >= most, "a written peer is gone again");
            most = conf.ours().len();
        }
    });
    assert_eq!(place.keys().len(), 60);
    assert_eq!(place.names(), ["run", "wg0.conf"]);
}

#[test]
fn a_file_that_cannot_be_understood_is_left_as_it_is() {
    let damaged = format!("{OLD}# semel: begin\n");
    let place = Place::new(&damaged);
    let refused = place.write(&peers([1])).unwrap_err();
    assert!(
        matches!(&refused, FileError::Conf { problem: ConfError { line: 3, problem: Problem::NeverEnds }, .. }),
        "{refused}"
    );
    assert!(
        refused.to_string().contains("wg0.conf, line 3: `# semel: begin` has no `# semel: end`; write"),
        "{refused}"
    );
    assert_eq!(place.text(), damaged);

    let place = Place::new(OLD);
    let refused = update(&place.paths, SOON, |_| b"[Peer]\n".to_vec()).unwrap_err();
    assert!(matches!(refused, FileError::NotWhole { .. }), "{refused}");
    assert_eq!(place.text(), OLD);
}
