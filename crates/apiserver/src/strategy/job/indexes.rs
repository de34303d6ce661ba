//! Sets of completion indexes as statuses and success policies write them: `1,3-5,7`. Upstream: validateIndexesFormat.

/// How many indexes the text names; the error is upstream's.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    let (mut last, mut total) = (None, 0);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

fn interval(text: &str, completions: i64) -> Result<(i64, i64), String> {
    let parts: Vec<&str> = text.split('-').collect();
    let index = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
        Ok(index) => Ok(index),
    };
    match parts[..] {
        [only] => index(only).map(|index| (index, index)),
        [first, last] => {
            let (first, last) = (index(first)?, index(last)?);
            if first >= last {
                return Err(format!("non-increasing order, previous: {first}, current: {last}"));
            }
            Ok((first, last))
        }
        _ => Err(format!(
            "the fragment {text:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        )),
    }
}

/// An index that both texts name.
pub(super) fn overlap(a: &str, b: &str, completions: i64) -> Option<i64> {
    let intervals = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (a, b) = (intervals(a), intervals(b));
    let (mut i, mut j) = (0, 0);
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        if x.0 <= y.1 && y.0 <= x.1 {
            return Some(x.0.max(y.0));
        }
        match x.0 <= y.0 {
            true => i += 1,
            false => j += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted_or_refused() {
        let check = |text: &str, expect: Result<i64, &str>| {
            assert_eq!(count(text, 10), expect.map_err(str::to_owned), "{text}");
        };
        check("", Ok(0));
        check("0,2-4,9", Ok(5));
        check("3,2", Err("non-increasing order, previous: 3, current: 2"));
        check("4-2", Err("non-increasing order, previous: 4, current: 2"));
        check("10", Err("too large index: \"10\""));
        check("x", Err("cannot convert string to integer for index: \"x\""));
        check("0,", Err("cannot convert string to integer for index: \"\""));
        assert_eq!((overlap("1-3,7", "4-6,7", 10), overlap("1-3", "4", 10)), (Some(7), None));
    }
}
