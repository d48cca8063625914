//! The same for many things at once: lists of a thousand containers are files to be opened and read, which processors can
//! do beside each other. Never on the way to a container's start: whoever forks has one thread.

use std::num::NonZeroUsize;

/// With fewer, a thread costs more than it brings.
const WORTHWHILE: usize = 64;

/// More than this wait for each other in the kernel.
const MOST_THREADS: usize = 4;

/// What `each` makes of every item, in the same order.
pub(crate) fn map<T: Send, R: Send>(items: Vec<T>, each: impl Fn(T) -> R + Sync) -> Vec<R> {
    let there = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = there.min(MOST_THREADS).min(items.len() / WORTHWHILE);
    if threads < 2 {
        return items.into_iter().map(each).collect();
    }
    let share = items.len().div_ceil(threads);
    let mut shares: Vec<Vec<T>> = Vec::new();
    let mut items = items.into_iter();
    loop {
        let next: Vec<T> = items.by_ref().take(share).collect();
        if next.is_empty() {
            break;
        }
        shares.push(next);
    }
    let each = &each;
    std::thread::scope(|scope| {
        let own = shares.pop().unwrap_or_default();
        let others: Vec<_> = shares
            .into_iter()
            .map(|share| scope.spawn(move || share.into_iter().map(each).collect::<Vec<_>>()))
            .collect();
        let last: Vec<R> = own.into_iter().map(each).collect();
        let mut all = Vec::new();
        for other in others {
            match other.join() {
                Ok(part) => all.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        all.extend(last);
        all
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_stays() {
        for count in [0, 1, 63, 64, 128, 129, 1000] {
            let doubled = map((0..count).collect(), |number: usize| number * 2);
            assert_eq!(doubled, (0..count).map(|number| number * 2).collect::<Vec<_>>(), "{count}");
        }
    }
}
