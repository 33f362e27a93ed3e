//! The way of the core's news to all shards, and the order that clients may rely on.
//!
//! A client that has been told of a change by one shard may turn to another at once, and must
//! not find it unheard there. Two rules see to that:
//!
//! 1. what the core says is taken in by a shard only once every shard has it in its inbox:
//!    messages are numbered, and [`Post`] publishes the number of the last that all have;
//! 2. a shard serves an input only after it has taken in the mail that was in its inbox when
//!    the input was received ([`Inbox::has_mail`] is one load while there is none). The only
//!    shard of a server need not: nobody else tells its clients of anything.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mailbox::{MailReceiver, MailSender};
use crate::mail::{Mail, Tell};

/// The core's side.
pub struct Post {
    shards: Vec<MailSender<Mail>>,
    /// Which of them expect more in a moment.
    told_more: Vec<bool>,
    /// Number of the last batch.
    batch: u64,
    everywhere: Everywhere,
}

/// Number of the last batch that every shard has in its inbox.
#[derive(Clone, Default)]
pub struct Everywhere(Arc<AtomicU64>);

/// A shard's side.
pub struct Inbox {
    receiver: MailReceiver<Mail>,
    everywhere: Everywhere,
    /// News that not every shard has yet. What came after it waits behind it.
    held: Option<Mail>,
    /// The box may hold something.
    has_mail: bool,
    /// There are other shards, which tell clients of changes too.
    has_siblings: bool,
}

impl Post {
    /// The way to `shards`, whose inboxes share `everywhere` with it.
    #[must_use]
    pub fn new(shards: Vec<MailSender<Mail>>, everywhere: Everywhere) -> Post {
        Post {
            told_more: vec![false; shards.len()],
            shards,
            batch: 0,
            everywhere,
        }
    }

    /// Sends each shard what it is to be told, in the order of the shards, and empties the
    /// lists. Waits for a shard whose inbox is full, and so do the others with this batch. With
    /// `more` the shards learn that more is told in a moment; who was told that hears when it
    /// no longer holds, if only that. False if there was nothing to send.
    pub async fn carry(&mut self, tells: &mut [Vec<Tell>], more: bool) -> bool {
        let is_due =
            |told_more: &bool, tells: &Vec<Tell>| !tells.is_empty() || (*told_more && !more);
        let mut lists = self.told_more.iter().zip(&*tells);
        if !lists.any(|(told_more, tells)| is_due(told_more, tells)) {
            return false;
        }
        self.batch += 1;
        let mut quiet = Vec::with_capacity(self.shards.len());
        for ((shard, told_more), tells) in self.shards.iter().zip(&mut self.told_more).zip(tells) {
            if !is_due(told_more, tells) {
                continue;
            }
            *told_more = more;
            // As much may be to tell the next time; this list stays with the shard.
            let room = Vec::with_capacity(tells.len());
            let mail = Mail::Core {
                batch: self.batch,
                tells: std::mem::replace(tells, room),
                more,
            };
            // Nobody is woken before all have it, or would only wait for the others.
            match shard.leave(mail) {
                Ok(true) => quiet.push(shard),
                Ok(false) => {}
                Err(mail) => {
                    quiet.drain(..).for_each(MailSender::wake);
                    shard.send(mail).await;
                }
            }
        }
        self.everywhere.0.store(self.batch, Ordering::Release);
        quiet.into_iter().for_each(MailSender::wake);
        true
    }
}

impl Inbox {
    /// The inbox behind `receiver`, of one of so many shards.
    #[must_use]
    pub fn new(receiver: MailReceiver<Mail>, everywhere: Everywhere, shards: usize) -> Inbox {
        Inbox {
            receiver,
            everywhere,
            held: None,
            has_mail: false,
            has_siblings: shards > 1,
        }
    }

    /// True if there may be mail, and it has to be taken in before an input is served.
    #[inline]
    #[must_use]
    pub fn is_first_to_be_heard(&self) -> bool {
        self.has_siblings && self.has_mail()
    }

    /// The bell has rung.
    pub fn rung(&mut self) {
        self.receiver.silence();
        self.has_mail = true;
    }

    /// True if there may be mail.
    #[inline]
    #[must_use]
    pub fn has_mail(&self) -> bool {
        self.has_mail || self.receiver.is_ringing()
    }

    /// True if the next message is not for this shard to take in yet.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// The next message that may be taken in now.
    #[must_use]
    pub fn take(&mut self) -> Option<Mail> {
        if !self.has_mail {
            return None;
        }
        let Some(mail) = self.held.take().or_else(|| self.receiver.next()) else {
            self.has_mail = false;
            return None;
        };
        if let Mail::Core { batch, .. } = mail
            && batch > self.everywhere.0.load(Ordering::Acquire)
        {
            self.held = Some(mail);
            return None;
        }
        Some(mail)
    }

    /// How many messages are in the box now, for [`Inbox::take`] to hand over as far as they may
    /// be taken in.
    #[must_use]
    pub fn waiting(&mut self) -> usize {
        if self.receiver.is_ringing() {
            self.rung();
        }
        self.receiver.waiting() + usize::from(self.held.is_some())
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::super::mailbox::mailbox;
    use super::*;

    fn office(shards: usize, capacity: usize) -> (Post, Vec<Inbox>, Vec<MailSender<Mail>>) {
        let everywhere = Everywhere::default();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..shards).map(|_| mailbox(capacity).unwrap()).unzip();
        let inboxes = receivers
            .into_iter()
            .map(|receiver| Inbox::new(receiver, everywhere.clone(), shards));
        let inboxes = inboxes.collect();
        (Post::new(senders.clone(), everywhere), inboxes, senders)
    }

    fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn mail_is_heard_before_an_input_unless_nobody_else_tells_of_it() {
        for (shards, is_first) in [(1, false), (2, true)] {
            let (mut post, inboxes, _senders) = office(shards, 4);
            assert!(!inboxes[0].is_first_to_be_heard(), "there is none");
            let mut tells: Vec<_> = (0..shards).map(|_| stop()).collect();
            assert_eq!(poll(post.carry(&mut tells, false)), Poll::Ready(true));
            assert!(inboxes[0].has_mail());
            assert_eq!(inboxes[0].is_first_to_be_heard(), is_first);
        }
    }

    fn stop() -> Vec<Tell> {
        vec![Tell::Stop]
    }

    fn taken(inbox: &mut Inbox) -> usize {
        let waiting = inbox.waiting();
        (0..waiting).map_while(|_| inbox.take()).count()
    }

    #[test]
    fn what_is_sent_is_there_to_be_taken_in_before_the_next_input() {
        let (mut post, mut inboxes, _) = office(2, 8);
        assert!(!inboxes[0].has_mail());
        assert!(poll(post.carry(&mut [stop(), stop()], false)).is_ready());
        assert!(poll(post.carry(&mut [stop(), Vec::new()], false)).is_ready());
        for (inbox, count) in inboxes.iter_mut().zip([2, 1]) {
            assert!(inbox.has_mail());
            assert_eq!(taken(inbox), count);
            assert!(inbox.take().is_none());
            assert!(!inbox.has_mail());
        }
    }

    #[test]
    fn nothing_to_tell_is_no_batch() {
        let (mut post, inboxes, _) = office(1, 8);
        assert_eq!(
            poll(post.carry(&mut [Vec::new()], false)),
            Poll::Ready(false)
        );
        assert_eq!((post.batch, inboxes[0].has_mail()), (0, false));
    }

    #[test]
    fn who_was_told_that_more_comes_hears_that_it_does_not_although_there_is_nothing_to_tell() {
        let (mut post, mut inboxes, _senders) = office(3, 8);
        let told = |inbox: &mut Inbox| {
            let waiting = inbox.waiting();
            let mails = (0..waiting).map_while(|_| inbox.take());
            let told = mails.map(|mail| match mail {
                Mail::Core { more, tells, .. } => (more, tells.len()),
                other => panic!("{other:?}"),
            });
            told.collect::<Vec<_>>()
        };
        for (mut tells, more, sent) in [
            ([stop(), stop(), vec![]], true, true),
            ([stop(), vec![], vec![]], true, true),
            ([vec![], vec![], vec![]], false, true),
            ([vec![], vec![], vec![]], false, false),
        ] {
            assert_eq!(poll(post.carry(&mut tells, more)), Poll::Ready(sent));
        }
        assert_eq!(told(&mut inboxes[0]), [(true, 1), (true, 1), (false, 0)]);
        assert_eq!(told(&mut inboxes[1]), [(true, 1), (false, 0)]);
        assert!(told(&mut inboxes[2]).is_empty());
        assert_eq!(post.batch, 3);
    }

    #[test]
    fn news_that_not_every_shard_has_waits_and_all_behind_it() {
        let (mut post, mut inboxes, senders) = office(2, 1);
        senders[1].try_send(Mail::Nudge).unwrap();
        let mut tells = [stop(), stop()];
        {
            let mut carry = pin!(post.carry(&mut tells, false));
            let mut context = Context::from_waker(Waker::noop());
            assert!(carry.as_mut().poll(&mut context).is_pending(), "no room");
            assert!(inboxes[0].has_mail());
            assert_eq!(taken(&mut inboxes[0]), 0);
            assert!(inboxes[0].is_held());
            senders[0].try_send(Mail::Nudge).unwrap();
            assert_eq!(taken(&mut inboxes[0]), 0, "behind the news");
            // The full box is emptied, and goes on with what is its own.
            assert_eq!(taken(&mut inboxes[1]), 1);
            assert!(carry.as_mut().poll(&mut context).is_ready());
        }
        assert!(inboxes[0].has_mail() && inboxes[1].has_mail());
        assert!(matches!(
            inboxes[0].take(),
            Some(Mail::Core { batch: 1, .. })
        ));
        assert!(matches!(inboxes[0].take(), Some(Mail::Nudge)));
        assert_eq!(taken(&mut inboxes[1]), 1);
    }

    #[test]
    fn everybody_is_woken_although_one_has_to_be_waited_for() {
        let (mut post, inboxes, senders) = office(3, 1);
        senders[1].try_send(Mail::Nudge).unwrap();
        inboxes[1].receiver.silence();
        let mut tells = [stop(), stop(), stop()];
        let mut carry = pin!(post.carry(&mut tells, false));
        let mut context = Context::from_waker(Waker::noop());
        assert!(carry.as_mut().poll(&mut context).is_pending());
        assert!(inboxes[0].receiver.rings());
        assert!(inboxes[1].receiver.next().is_some());
        assert!(carry.as_mut().poll(&mut context).is_ready());
        assert!(inboxes.iter().all(|inbox| inbox.receiver.rings()));
    }
}
