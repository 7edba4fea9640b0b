//! What stands in for the parts of the runtime that loom cannot look into, and the models.
//!
//! A goroutine's stack is a thread of its own that runs when its machine lets it (`switch`), the clock stands still until
//! the model says that all time is over (`clock`), and the model itself plays the monitor. All the rest is the real code.
//! loom allows five threads a model, and goes through their interleavings with a bounded number of preemptions
//! (`LOOM_MAX_PREEMPTIONS`); queues and counts are as small as the edges that they are to reach.
//!
//! Two things that loom does not see. Accesses of a cell count as one with the atomic operation before them: what may come in
//! between needs an atomic. And an operation is tried before another thread's last access of the same word only, so a load
//! before a compare-and-swap hides the swap from who loads: let the other side swap, too.
//!
//! What was changed in the code, and what failed then; a change that nothing notices is a gap. Not seen by any model: a steal of
//! goroutines that have started (they are sent home), a machine's question for its own goroutines where it is the younger one
//! (`Machine::ask`), a deadline that pokes nobody, who is in the poller (`tests/common/fd.rs`), a machine that comes to rest without a processor and does not tell the watcher, and
//! what the stand-ins replace: the switch, the clock, the kernel with its poller. `monitor` decides when
//! to hand on, and has tests of its own; a fork has `tests/fork.rs`.
//!
//! | of | mutation | model that fails |
//! |---|---|---|
//! | lock | a lock that is waited for is not taken as wanted | `futex::a_lock_is_held_by_one_and_wakes_all_in_turn` |
//! | lock | it is taken or freed without an order | `futex::a_lock_is_held_by_one_and_wakes_all_in_turn` and others |
//! | condition | the count is read after the lock was given back; it does not go up | `futex::a_notification_is_not_slept_through` |
//! | chan | a receive does not refill the buffer from the senders | `chan::a_receive_makes_room_for_the_sender_that_waits` |
//! | park | the claim is relaxed | `park::one_claim_wins_and_one_side_makes_ready` and others |
//! | park | the mark is relaxed | `park::one_claim_wins_and_one_side_makes_ready` |
//! | park | no fence between a cancellation's wish and its look | `park::a_cancellation_against_a_counterpart` |
//! | park | who cancels takes the wish back, after the wake-up | `park::a_cancellation_ends_one_wait` |
//! | timer | a deadline is claimed before it is taken out | `park::a_timer_leaves_the_frame_that_it_ends_alone` |
//! | alarm | an earlier one than all others pokes nobody | `park::a_machine_that_sleeps_is_told_of_a_timer` |
//! | thread | a signal sets no flag, or wakes nobody | nearly all of `chan`, `sync`, `select` |
//! | signals | who ceases to listen does not wait for handlers at work; either side has no fence | `inbox::what_was_noted_is_there_once_it_is_retired` |
//! | signals | the count is read after the signals were taken; it does not go up; nobody is woken | `inbox::what_was_noted_is_not_slept_through` |
//! | semaphore | a unit too many is given out | `sync::a_semaphore_gives_out_no_more_than_it_has` |
//! | semaphore | a stale waiter is paid for; no wake-up | `sync::a_semaphore_gives_out_no_more_than_it_has` |
//! | semaphore | who leaves admits nobody | `sync::a_large_request_holds_small_ones_back_until_it_gives_up` |
//! | semaphore | one that comes does not look at the queue | `sync::nobody_gets_in_before_who_waits_longer` |
//! | semaphore | a release admits one only | `sync::a_release_serves_all_that_it_suffices_for` |
//! | waitgroup | zero wakes one only; a wait does not look at the count | `sync::a_wait_group_lets_all_go_at_zero` |
//! | waitgroup | one counts as zero | `sync::a_wait_group_lets_nobody_go_before_zero` |
//! | note | wakes one only; is not set; is set after it has woken | `sync::a_note_wakes_all` |
//! | run queue | a wrong link; a wrong order | `queue::owner_and_thief_take_each_goroutine_once` and others |
//! | run queue | a steal leaves the goroutine in the queue | `queue` crashes |
//! | run queue | nobody is called to help; no look at the others' queues before sleep | `queue::a_processor_that_goes_to_sleep_sees_what_came_meanwhile` |
//! | run queue | the front of an empty queue is not its end | `run_queue::tests` |
//! | hand-off | a machine is given a second processor; one is taken though nothing runs | `handoff` crashes |
//! | hand-off | a processor is given without a word; the mailbox opens after the question | `handoff::a_processor_is_taken_twice` and others |
//! | hand-off | a processor is idle only in name; a home claims nothing | `handoff::a_processor_is_taken_twice` and others |
//! | hand-off | who returns with a goroutine wakes nobody | `handoff::a_younger_machine_comes_back_to_one_that_sleeps` |
//! | hand-off | what is kept is not let go where a goroutine becomes runnable | `handoff::a_goroutine_moves_once_its_thread_has_let_it_go` |
//! | hand-off | or where a machine gives way | `handoff::a_machine_that_gives_way_has_let_its_goroutines_go` |
//! | hand-off | a home is given the processor that it sleeps with | `handoff::a_home_that_got_a_processor_by_itself_is_not_given_it_again` |
//! | hand-off | a processor that is given up is staffed for its queue only | `handoff::a_processor_that_is_given_up_goes_to_who_claimed_it` |
//! | descriptor | an edge that finds nobody is forgotten; a wait does not look for one | `fd` |
//! | descriptor | who is woken does not try again; a new deadline, or a close, wakes nobody | `fd` |
//! | errand | the account of a machine that seems to rest is closed: behind a goroutine it was stuck with, before it counts as busy, while it is idle already; nobody asks whether all is settled | `errand` |
//! | errand | a machine with its processor, or one without, is not woken | `errand` |
//! | monitor | is not woken by who runs; says too late that it sleeps | `handoff::the_monitor_is_awake_while_a_goroutine_runs` |
//! | vigil | who is awake is told no more, or looks no more before it sleeps, or sleeps as one who is awake | `park::a_machine_that_keeps_a_vigil_sees_what_becomes_runnable` |
//! | task | who has kept a vigil stays awake in name only | `task::who_keeps_a_vigil_misses_nothing` |
//! | task | a waker puts the tag in after it has given the post back | `task::a_cancellation_or_a_value_and_never_both` |
//! | trace | a word is published without an order, or before it is written; one is replaced after the next one was published | `trace::what_is_published_is_whole` |
//! | watcher | is not told by a machine that goes to sleep with its processor | `park::the_watcher_is_told_that_all_are_parked` |

pub mod clock;
pub(crate) mod kernel;
pub(crate) mod monitor;
pub(crate) mod netpoll;
pub mod stack;
pub(crate) mod switch;

#[cfg(test)]
mod harness;

#[cfg(test)]
mod chan;
#[cfg(test)]
mod errand;
#[cfg(test)]
mod fd;
#[cfg(test)]
mod futex;
#[cfg(test)]
mod handoff;
#[cfg(test)]
mod inbox;
#[cfg(test)]
mod park;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod select;
#[cfg(test)]
mod sync;
#[cfg(test)]
mod task;
#[cfg(test)]
mod trace;
