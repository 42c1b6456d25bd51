//! What waits in one lane: a queue for each chat, and the chats by the moment at which they may be written to.
//!
//! A chat with many messages holds one place among the chats, so it keeps nobody waiting but itself. Among the chats that may
//! be written to now, the one whose first message has waited longest goes first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Moment;
use super::chats::Chats;

/// Where a chat with messages stands.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Among those that may be written to, by the number of its first message.
    Ready(u64),
    /// Among those that have to wait, by the moment.
    Later(Moment),
}

#[derive(Clone, Debug)]
struct Line<K> {
    messages: VecDeque<(u64, K)>,
    place: Place,
}

/// One lane.
#[derive(Clone, Debug)]
pub(super) struct Queue<K> {
    lines: BTreeMap<i64, Line<K>>,
    ready: BTreeMap<u64, i64>,
    later: BTreeSet<(Moment, i64)>,
    len: usize,
}

impl<K: Ord + Clone> Queue<K> {
    pub(super) fn new() -> Self {
        Self { lines: BTreeMap::new(), ready: BTreeMap::new(), later: BTreeSet::new(), len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// How many messages wait for this chat.
    pub(super) fn len_of(&self, chat: i64) -> usize {
        self.lines.get(&chat).map_or(0, |line| line.messages.len())
    }

    /// Puts a message behind those of its chat. `number` grows from message to message.
    pub(super) fn push(&mut self, number: u64, key: K, chat: i64, chats: &Chats) {
        self.len += 1;
        if let Some(line) = self.lines.get_mut(&chat) {
            line.messages.push_back((number, key));
            return;
        }
        let at = chats.earliest(chat);
        self.later.insert((at, chat));
        self.lines.insert(chat, Line { messages: VecDeque::from([(number, key)]), place: Place::Later(at) });
    }

    /// The chat to write to at `now`, if there is one.
    pub(super) fn first(&mut self, now: Moment, chats: &Chats) -> Option<i64> {
        while let Some((_, chat)) = self.later.first().copied().filter(|(at, _)| *at <= now) {
            self.place(chat, now, chats);
        }
        // What became of a chat since it was ready: another lane may have written to it, or it was refused.
        while let Some(chat) = self.ready.first_key_value().map(|(_, chat)| *chat) {
            if chats.earliest(chat) <= now {
                return Some(chat);
            }
            self.place(chat, now, chats);
        }
        None
    }

    /// The first moment at which a chat that waits may be written to. Call [`Queue::first`] before.
    pub(super) fn next_at(&self) -> Option<Moment> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Takes the first message of this chat.
    pub(super) fn pop(&mut self, chat: i64, now: Moment, chats: &Chats) -> Option<K> {
        let (_, key) = self.lines.get_mut(&chat)?.messages.pop_front()?;
        self.len -= 1;
        self.place(chat, now, chats);
        Some(key)
    }

    /// Takes a message out, wherever it stands.
    pub(super) fn remove(&mut self, chat: i64, key: &K, now: Moment, chats: &Chats) {
        let Some(line) = self.lines.get_mut(&chat) else { return };
        let before = line.messages.len();
        line.messages.retain(|(_, other)| other != key);
        self.len -= before - line.messages.len();
        self.place(chat, now, chats);
    }

    /// Puts a chat where it belongs now; one without messages is gone.
    fn place(&mut self, chat: i64, now: Moment, chats: &Chats) {
        let Some(line) = self.lines.get_mut(&chat) else { return };
        match line.place {
            Place::Ready(number) => {
                self.ready.remove(&number);
            }
            Place::Later(at) => {
                self.later.remove(&(at, chat));
            }
        }
        let Some((number, _)) = line.messages.front() else {
            self.lines.remove(&chat);
            return;
        };
        let at = chats.earliest(chat);
        if at <= now {
            line.place = Place::Ready(*number);
            self.ready.insert(*number, chat);
        } else {
            line.place = Place::Later(at);
            self.later.insert((at, chat));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Limits;
    use super::*;

    /// Takes all that may go at `now`.
    fn all(queue: &mut Queue<&'static str>, chats: &mut Chats, now: Moment) -> Vec<&'static str> {
        let mut went = Vec::new();
        while let Some(chat) = queue.first(now, chats) {
            chats.take(chat, now);
            went.extend(queue.pop(chat, now, chats));
        }
        went
    }

    #[test]
    fn a_chat_with_many_messages_keeps_nobody_waiting_but_itself() {
        let (mut chats, mut queue) = (Chats::new(&Limits::per_second(30)), Queue::new());
        for (number, (chat, key)) in
            [(1, "a1"), (1, "a2"), (1, "a3"), (1, "a4"), (1, "a5"), (2, "b1"), (3, "c1")].into_iter().enumerate()
        {
            queue.push(u64::try_from(number).expect("small"), key, chat, &chats);
        }
        assert_eq!((queue.len(), queue.len_of(1)), (7, 5));
        assert_eq!(all(&mut queue, &mut chats, 0), ["a1", "a2", "a3", "b1", "c1"]);
        assert_eq!(queue.next_at(), Some(1_020));
        assert_eq!(all(&mut queue, &mut chats, 1_020), ["a4"]);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn a_chat_that_was_left_alone_meanwhile_waits() {
        let (mut chats, mut queue) = (Chats::new(&Limits::per_second(30)), Queue::new());
        queue.push(0, "a1", 1, &chats);
        queue.push(1, "b1", 2, &chats);
        assert_eq!(queue.first(0, &chats), Some(1));
        chats.leave_alone(1, 5_000, 0);
        assert_eq!(all(&mut queue, &mut chats, 0), ["b1"]);
        assert_eq!(queue.next_at(), Some(5_000));
        assert_eq!(all(&mut queue, &mut chats, 5_000), ["a1"]);
    }

    #[test]
    fn what_is_taken_out_leaves_no_trace() {
        let (mut chats, mut queue) = (Chats::new(&Limits::per_second(30)), Queue::new());
        queue.push(0, "a1", 1, &chats);
        queue.push(1, "b1", 2, &chats);
        queue.push(2, "a2", 1, &chats);
        queue.remove(1, &"a1", 0, &chats);
        queue.remove(1, &"a1", 0, &chats);
        queue.remove(2, &"b1", 0, &chats);
        assert_eq!(queue.len(), 1);
        assert_eq!(all(&mut queue, &mut chats, 0), ["a2"]);
        assert_eq!((queue.len(), queue.first(0, &chats), queue.next_at()), (0, None, None));
    }
}
