//! Looking after a delayed leave (MSC4140) in the client's place: keep pushing it off while its owner is in the call, send
//! it when the owner is gone.
//!
//! One [`Job`] per participant identity. The job says what to ask of the homeserver and when; doing it, and keeping the job
//! over a restart, is the caller's part. Times are unix milliseconds, so that a job read back after a restart goes on.

/// How long a job waits at most for its owner to connect, ms. Longer than any join takes; then the leave is sent.
const MAX_WAIT_MS: i64 = 3_600_000;
/// First retry after a failure, ms; doubles up to [`MAX_RETRY_MS`].
const MIN_RETRY_MS: i64 = 500;
/// Longest pause between retries, ms.
const MAX_RETRY_MS: i64 = 30_000;
/// A leave that could not be sent for this long is given up, ms: the delayed event has fired by itself by then.
const GIVE_UP_MS: i64 = 24 * 3_600_000;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The owner has a token but was not seen in the call yet.
    Waiting,
    /// The owner is in the call.
    Connected,
    /// The owner was lost at this time; it may come back within the grace.
    Lost(i64),
    /// The leave is to be sent, since this time.
    Leaving(i64),
    /// Nothing is left to do.
    Done,
}

/// What to ask of the homeserver now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// `…/delayed_events/{delay_id}/restart`
    Restart,
    /// `…/delayed_events/{delay_id}/send`
    Send,
}

/// How the homeserver answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Ok,
    /// 404: it has been sent or cancelled already.
    Gone,
    /// 429 with the pause asked for, ms.
    SlowDown(i64),
    /// No answer, 5xx, or anything else that may pass.
    Failed,
}

/// One delayed leave being looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    state: State,
    timeout_ms: i64,
    grace_ms: i64,
    made_at: i64,
    next_at: i64,
    retry_ms: i64,
    in_flight: Option<Request>,
}

impl Job {
    /// A job for a leave with this delay; `grace_ms` is how long a lost owner may take to come back.
    pub fn new(now: i64, timeout_ms: u64, grace_ms: i64) -> Self {
        let timeout_ms = i64::try_from(timeout_ms).unwrap_or(MAX_WAIT_MS).max(1);
        let wait = timeout_ms.min(MAX_WAIT_MS);
        Self {
            state: State::Waiting,
            timeout_ms,
            grace_ms,
            made_at: now,
            next_at: now.saturating_add(wait),
            retry_ms: MIN_RETRY_MS,
            in_flight: None,
        }
    }

    /// Where it stands.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether it can be forgotten.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The owner is in the call (again). Its leave is pushed off at once.
    pub fn on_connected(&mut self, now: i64) {
        if matches!(self.state, State::Waiting | State::Lost(_)) {
            self.state = State::Connected;
            self.due(now);
        }
    }

    /// The owner is gone. `intended` when it said so itself: then the leave is sent at once, else after the grace.
    pub fn on_gone(&mut self, now: i64, intended: bool) {
        match self.state {
            State::Waiting | State::Connected | State::Lost(_) if intended => {
                self.state = State::Leaving(now);
                self.due(now);
            }
            State::Connected => {
                self.state = State::Lost(now);
                self.due(now.saturating_add(self.grace_ms));
            }
            _ => {}
        }
    }

    /// When [`Job::poll`] wants to be called next, unix ms; `None` while an answer is awaited or when done.
    pub fn next_at(&self) -> Option<i64> {
        (self.in_flight.is_none() && !self.is_done()).then_some(self.next_at)
    }

    /// What to ask now, if anything. Answer with [`Job::on_answer`].
    pub fn poll(&mut self, now: i64) -> Option<Request> {
        if self.in_flight.is_some() || self.is_done() || now < self.next_at {
            return None;
        }
        self.in_flight = match self.state {
            State::Waiting | State::Lost(_) => {
                self.state = State::Leaving(now);
                Some(Request::Send)
            }
            State::Connected => Some(Request::Restart),
            State::Leaving(_) => Some(Request::Send),
            State::Done => None,
        };
        self.in_flight
    }

    /// The homeserver answered what [`Job::poll`] asked.
    pub fn on_answer(&mut self, now: i64, answer: Answer) {
        let Some(request) = self.in_flight.take() else { return };
        match (request, answer) {
            (Request::Send, Answer::Ok | Answer::Gone) => self.state = State::Done,
            // The event is no more: its owner cancelled it, or it has fired. Nothing to look after.
            (Request::Restart, Answer::Gone) => self.state = State::Done,
            (Request::Restart, Answer::Ok) => {
                self.retry_ms = MIN_RETRY_MS;
                if self.state == State::Connected {
                    // Four fifths of the delay: one failure can be made good before it fires.
                    self.next_at = now.saturating_add(self.timeout_ms / 5 * 4);
                }
            }
            (_, Answer::SlowDown(pause)) => self.retry_at(now, pause.clamp(MIN_RETRY_MS, 10 * MAX_RETRY_MS)),
            (_, Answer::Failed) => self.retry_at(now, self.retry_ms),
        }
        if let State::Leaving(since) = self.state
            && now.saturating_sub(since) > GIVE_UP_MS
        {
            self.state = State::Done;
        }
    }

    /// When the job was made, unix ms.
    pub const fn made_at(&self) -> i64 {
        self.made_at
    }

    fn due(&mut self, at: i64) {
        self.next_at = at;
        self.retry_ms = MIN_RETRY_MS;
    }

    fn retry_at(&mut self, now: i64, pause: i64) {
        // A state that changed while the request was under way has set its own time; the earlier one counts.
        let retry = now.saturating_add(pause);
        self.next_at = if self.next_at > now { self.next_at.min(retry) } else { retry };
        self.retry_ms = (self.retry_ms * 2).min(MAX_RETRY_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_while_connected_and_sends_when_the_owner_hangs_up() {
        let mut job = Job::new(0, 10_000, 3_000);
        job.on_connected(100);
        assert_eq!(job.poll(100), Some(Request::Restart));
        assert_eq!(job.poll(100), None, "one at a time");
        job.on_answer(150, Answer::Ok);
        assert_eq!(job.next_at(), Some(8_150));
        job.on_gone(5_000, true);
        assert_eq!(job.poll(5_000), Some(Request::Send));
        job.on_answer(5_050, Answer::Ok);
        assert!(job.is_done());
    }

    #[test]
    fn waits_out_the_grace_for_somebody_who_was_lost() {
        let mut job = Job::new(0, 3_600_000, 3_000);
        job.on_connected(0);
        job.poll(0);
        job.on_answer(0, Answer::Ok);
        job.on_gone(1_000, false);
        assert_eq!(job.poll(3_999), None);
        job.on_connected(3_999);
        assert_eq!(job.poll(3_999), Some(Request::Restart), "back in time: pushed off, not sent");
        job.on_answer(4_000, Answer::Ok);
        job.on_gone(5_000, false);
        assert_eq!(job.poll(8_000), Some(Request::Send));
    }

    #[test]
    fn sends_the_leave_of_somebody_who_never_came() {
        let mut job = Job::new(0, 18_000, 3_000);
        assert_eq!(job.poll(17_999), None);
        assert_eq!(job.poll(18_000), Some(Request::Send));
        job.on_answer(18_010, Answer::Gone);
        assert!(job.is_done());
    }

    #[test]
    fn retries_with_growing_pauses_and_never_while_one_is_under_way() {
        let mut job = Job::new(0, 10_000, 0);
        job.on_gone(0, true);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..9 {
            assert_eq!(job.poll(now), Some(Request::Send));
            job.on_answer(now, Answer::Failed);
            let next = job.next_at().unwrap_or(i64::MAX);
            pauses.push(next - now);
            now = next;
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(job.poll(now), Some(Request::Send));
        job.on_answer(now, Answer::SlowDown(7_000));
        assert_eq!(job.next_at(), Some(now + 7_000));
        job.poll(now + 7_000);
        job.on_answer(now + GIVE_UP_MS + 1, Answer::Failed);
        assert!(job.is_done(), "a homeserver that is gone for a day is not asked for ever");
    }

    #[test]
    fn leaves_at_once_when_the_hang_up_crosses_a_restart() {
        let mut job = Job::new(0, 10_000, 3_000);
        job.on_connected(0);
        assert_eq!(job.poll(0), Some(Request::Restart));
        job.on_gone(10, true);
        job.on_answer(20, Answer::Failed);
        assert!(job.poll(520).is_some_and(|r| r == Request::Send));
    }
}
