//! Sets of completion indexes as Job statuses write them: `1,3-5,7`.

use std::fmt;

/// Indexes as ordered intervals, both ends included, that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i64, i64)>);

impl Indexes {
    /// Those below `completions`. What cannot be read is left out.
    pub(super) fn parse(text: &str, completions: i64) -> Indexes {
        let mut intervals: Vec<(i64, i64)> = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>()) else { continue };
            if first >= completions {
                break;
            }
            intervals.push((first, last.min(completions - 1)));
        }
        Indexes::of_intervals(intervals)
    }

    fn of_intervals(mut intervals: Vec<(i64, i64)>) -> Indexes {
        intervals.sort_unstable();
        let mut merged: Vec<(i64, i64)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match merged.last_mut() {
                Some((_, end)) if first <= *end + 1 => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Indexes(merged)
    }

    pub(super) fn with(&self, more: impl IntoIterator<Item = i64>) -> Indexes {
        let more = more.into_iter().map(|index| (index, index));
        Indexes::of_intervals(self.0.iter().copied().chain(more).collect())
    }

    pub(super) fn union(&self, other: &Indexes) -> Indexes {
        Indexes::of_intervals(self.0.iter().chain(&other.0).copied().collect())
    }

    pub(super) fn total(&self) -> i64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, index: i64) -> bool {
        let after = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(after).is_some_and(|(first, _)| *first <= index)
    }

    /// How many indexes are in both.
    pub(super) fn in_common(&self, other: &Indexes) -> i64 {
        let (mut a, mut b, mut total) = (0, 0, 0);
        while let (Some(x), Some(y)) = (self.0.get(a), other.0.get(b)) {
            total += (x.1.min(y.1) - x.0.max(y.0) + 1).max(0);
            match x.1 < y.1 {
                true => a += 1,
                false => b += 1,
            }
        }
        total
    }

    /// The first `count` indexes below `completions` that are not in the set.
    pub(super) fn first_missing(&self, count: usize, completions: i64) -> Vec<i64> {
        let mut missing = Vec::new();
        let mut candidate = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            missing.extend((candidate..first.min(completions)).take(count - missing.len()));
            candidate = candidate.max(last + 1);
        }
        missing
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (first, last)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_and_written() {
        let check = |text: &str, completions: i64, expect: &str, total: i64| {
            let indexes = Indexes::parse(text, completions);
            assert_eq!((indexes.to_string().as_str(), indexes.total()), (expect, total), "{text}");
        };
        check("", 10, "", 0);
        check("1", 10, "1", 1);
        check("1,2", 10, "1,2", 2);
        check("1-3,4,7", 10, "1-4,7", 5);
        check("1-9,12", 5, "1-4", 4);
        check("0,x,2-y,4", 10, "0,4", 2);
        assert_eq!(Indexes::parse("1,5-7", 10).with([6, 2, 0, 8]).to_string(), "0-2,5-8");
    }

    #[test]
    fn sets_are_compared() {
        let of = |text: &str| Indexes::parse(text, 100);
        assert!(of("1,5-7").has(6) && !of("1,5-7").has(4) && !of("1,5-7").has(8));
        assert_eq!(of("1-5,8,10-12").in_common(&of("3-8,11")), 5);
        assert_eq!(of("1-3").union(&of("4,9")).to_string(), "1-4,9");
        assert_eq!(of("1,3-4").first_missing(3, 8), [0, 2, 5]);
        assert_eq!(of("1,3-4").first_missing(9, 6), [0, 2, 5]);
        assert_eq!(of("0-9").first_missing(2, 5), Vec::<i64>::new());
    }
}
