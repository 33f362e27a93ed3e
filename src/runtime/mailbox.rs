//! A shard's inbox: a flume channel, and a bell in the shard's epoll set.
//!
//! The shard rests in its epoll set, so a sender writes to an eventfd there instead of
//! waking glommio. The bell is rung only if it is not ringing already: many messages sent
//! while the shard is busy cost one wake-up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flume::{Receiver, Sender, TrySendError};
use rustix::event::{EventfdFlags, eventfd};

/// The sending side; cheap to clone.
pub struct MailSender<T> {
    channel: Sender<T>,
    bell: Arc<Bell>,
}

/// The receiving side.
pub struct MailReceiver<T> {
    channel: Receiver<T>,
    bell: Arc<Bell>,
}

struct Bell {
    event: OwnedFd,
    /// Set by whoever rings, cleared by the shard before it empties the channel.
    ringing: AtomicBool,
}

/// A box for at most `capacity` messages.
///
/// # Errors
/// If the process is out of descriptors.
pub fn mailbox<T>(capacity: usize) -> io::Result<(MailSender<T>, MailReceiver<T>)> {
    let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let bell = Arc::new(Bell {
        event,
        ringing: AtomicBool::new(false),
    });
    let (sender, receiver) = flume::bounded(capacity);
    let sender = MailSender {
        channel: sender,
        bell: Arc::clone(&bell),
    };
    Ok((
        sender,
        MailReceiver {
            channel: receiver,
            bell,
        },
    ))
}

impl<T> Clone for MailSender<T> {
    fn clone(&self) -> Self {
        MailSender {
            channel: self.channel.clone(),
            bell: Arc::clone(&self.bell),
        }
    }
}

impl<T> MailSender<T> {
    /// Sends, or hands the message back if the box is full. A message to a shard that has
    /// gone is dropped: nobody waits for what it would have done.
    ///
    /// # Errors
    /// The message, if there is no room.
    pub fn try_send(&self, message: T) -> Result<(), T> {
        match self.channel.try_send(message) {
            Ok(()) => {
                self.ring();
                Ok(())
            }
            Err(TrySendError::Full(message)) => Err(message),
            Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Sends, waiting for room if need be.
    pub async fn send(&self, message: T) {
        if let Err(message) = self.try_send(message) {
            // The box is full, so the shard has been rung for and empties it.
            let _ = self.channel.send_async(message).await;
            self.ring();
        }
    }

    /// Leaves a message without waking the receiver, who sees it all the same if it looks.
    /// True if [`MailSender::wake`] must follow.
    ///
    /// # Errors
    /// The message, if there is no room.
    pub fn leave(&self, message: T) -> Result<bool, T> {
        match self.channel.try_send(message) {
            Ok(()) => Ok(!self.bell.ringing.swap(true, Ordering::AcqRel)),
            Err(TrySendError::Full(message)) => Err(message),
            Err(TrySendError::Disconnected(_)) => Ok(false),
        }
    }

    /// Wakes the receiver after [`MailSender::leave`].
    pub fn wake(&self) {
        // Fails only if the count would overflow: then it is readable all the same.
        let _ = rustix::io::write(&self.bell.event, &1_u64.to_ne_bytes());
    }

    fn ring(&self) {
        if !self.bell.ringing.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }
}

impl<T> MailReceiver<T> {
    /// Silences the bell. To be called before the box is emptied: what is sent after this
    /// rings again.
    pub fn silence(&self) {
        let mut count = [0_u8; 8];
        // Nothing to read means that it has not rung since.
        let _ = rustix::io::read(&self.bell.event, &mut count);
        self.bell.ringing.store(false, Ordering::Release);
    }

    /// True if something has been sent since the bell was last silenced.
    #[inline]
    #[must_use]
    pub fn is_ringing(&self) -> bool {
        self.bell.ringing.load(Ordering::Acquire)
    }

    /// How many messages there are.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.channel.len()
    }

    /// True if a receiver that rests would be woken.
    #[cfg(test)]
    pub fn rings(&self) -> bool {
        let mut polled = [rustix::event::PollFd::new(
            self,
            rustix::event::PollFlags::IN,
        )];
        let at_once = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        rustix::event::poll(&mut polled, Some(&at_once)).is_ok_and(|count| count == 1)
    }

    /// The next message, if there is one. `None` too once every sender is gone.
    #[must_use]
    pub fn next(&self) -> Option<T> {
        self.channel.try_recv().ok()
    }
}

impl<T> AsFd for MailReceiver<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bell_rings_until_it_is_silenced_and_again_after() {
        let (sender, receiver) = mailbox(8).unwrap();
        assert!(!receiver.rings());
        sender.try_send(1).unwrap();
        sender.try_send(2).unwrap();
        assert!(receiver.rings());
        receiver.silence();
        assert!(!receiver.rings());
        assert_eq!(
            (receiver.next(), receiver.next(), receiver.next()),
            (Some(1), Some(2), None)
        );
        sender.try_send(3).unwrap();
        assert!(receiver.rings());
    }

    #[test]
    fn a_message_sent_between_silencing_and_emptying_is_not_slept_through() {
        let (sender, receiver) = mailbox(8).unwrap();
        sender.try_send(1).unwrap();
        receiver.silence();
        sender.try_send(2).unwrap();
        assert_eq!((receiver.next(), receiver.next()), (Some(1), Some(2)));
        assert!(receiver.rings(), "at worst one wake-up for nothing");
    }

    #[test]
    fn a_message_that_is_left_is_seen_at_once_and_wakes_nobody_before_it_is_to() {
        let (sender, receiver) = mailbox(2).unwrap();
        assert_eq!(sender.leave(1), Ok(true));
        assert!(receiver.is_ringing() && !receiver.rings());
        assert_eq!(sender.leave(2), Ok(false), "once is enough");
        assert_eq!(sender.leave(3), Err(3));
        sender.wake();
        assert!(receiver.rings());
        receiver.silence();
        assert!(!receiver.is_ringing());
        assert_eq!((receiver.next(), receiver.next()), (Some(1), Some(2)));
    }

    #[test]
    fn a_full_box_hands_the_message_back() {
        let (sender, receiver) = mailbox(1).unwrap();
        sender.try_send("a").unwrap();
        assert_eq!(sender.try_send("b"), Err("b"));
        assert_eq!(receiver.next(), Some("a"));
        drop(receiver);
        assert_eq!(sender.try_send("c"), Ok(()), "nobody is left to read it");
    }
}
