use std::time::Duration;

use apimachinery::Value;
use env::Env;

use super::*;

fn object(name: &str, node: &str, revision: u64) -> Arc<Object> {
    let mut value = Value::object();
    value.set(&["metadata", "name"], name);
    Arc::new(Object::with_fields(&value, revision, vec![(NODE_FIELD, node.to_owned())]).unwrap())
}

struct Fixture {
    cache: Arc<Cache>,
    now: Instant,
}

impl Fixture {
    fn new(limits: LogLimits) -> Fixture {
        let cache = Arc::new(Cache::new(limits));
        cache.load(Vec::new(), 10);
        Fixture { cache, now: Env::system().monotonic() }
    }

    fn put(&self, key: &str, node: &str, revision: u64) {
        let object = Some(object(key, node, revision));
        self.cache.append(Change { key: key.into(), object, revision }, self.now);
    }

    fn delete(&self, key: &str, revision: u64) {
        self.cache.append(Change { key: key.into(), object: None, revision }, self.now);
    }

    fn keys_at(&self, range: Range, start: &str, revision: u64) -> Result<String, TooOld> {
        let mut keys = Vec::new();
        self.cache.scan_at(&range, start, revision, |key, object| {
            keys.push(format!("{key}@{}", object.revision()));
            true
        })?;
        Ok(keys.join(" "))
    }
}

fn drain(cursor: &mut Cursor) -> String {
    let mut seen = Vec::new();
    let mut visit = |entry: &Entry| seen.push(format!("{}@{}", entry.key, entry.revision));
    match cursor.read(100, 0, &mut visit) {
        Ok(_) => seen.join(" "),
        Err(fallen) => format!("fallen {}", fallen.oldest),
    }
}

#[test]
fn a_list_can_be_read_as_it_was() {
    let fixture = Fixture::new(LogLimits::default());
    fixture.put("a/x", "", 11);
    fixture.put("a/y", "n1", 12);
    fixture.put("b/x", "", 13);
    fixture.put("a/x", "", 14);
    fixture.delete("a/y", 15);
    let check = |range: Range, start: &str, revision: u64, expect: &str| {
        assert_eq!(fixture.keys_at(range, start, revision).unwrap(), expect);
    };
    check(Range::All, "", 15, "a/x@14 b/x@13");
    check(Range::All, "", 14, "a/x@14 a/y@12 b/x@13");
    check(Range::All, "", 13, "a/x@11 a/y@12 b/x@13");
    check(Range::All, "a/y", 13, "a/y@12 b/x@13");
    check(Range::Namespace("a".into()), "", 12, "a/x@11 a/y@12");
    check(Range::Key("a/y".into()), "", 13, "a/y@12");
    check(Range::Node("n1".into()), "", 14, "a/y@12");
    check(Range::All, "", 10, "");
    assert_eq!(fixture.keys_at(Range::All, "", 9), Err(TooOld { oldest: 10 }));
}

#[test]
fn a_watcher_sees_what_concerns_it() {
    let fixture = Fixture::new(LogLimits::default());
    fixture.put("a/x", "n1", 11);
    let mut all = fixture.cache.watch_after(Range::All, 10).unwrap();
    let mut namespace = fixture.cache.watch_after(Range::Namespace("b".into()), 11).unwrap();
    let mut node = fixture.cache.watch_after(Range::Node("n1".into()), 11).unwrap();
    fixture.put("b/x", "", 12);
    fixture.put("a/x", "n2", 13);
    assert_eq!(drain(&mut all), "a/x@11 b/x@12 a/x@13");
    assert_eq!(drain(&mut all), "");
    assert_eq!(drain(&mut namespace), "b/x@12");
    assert_eq!(drain(&mut node), "a/x@13");
}

#[test]
fn only_a_watcher_that_missed_something_falls() {
    let fixture = Fixture::new(LogLimits { max_bytes: 2000, easy_bytes: 2000, min_age: Duration::ZERO });
    let mut idle = fixture.cache.watch_after(Range::Namespace("b".into()), 10).unwrap();
    assert_eq!(drain(&mut idle), "");
    let mut slow = fixture.cache.watch_after(Range::All, 10).unwrap();
    (11..200).for_each(|revision| fixture.put("a/x", "", revision));
    assert!(drain(&mut slow).starts_with("fallen "));
    fixture.put("b/x", "", 200);
    assert_eq!(drain(&mut idle), "b/x@200");
    assert!(fixture.cache.watch_after(Range::All, 11).is_err());
}

#[tokio::test]
async fn a_long_log_is_read_in_parts() {
    let fixture = Fixture::new(LogLimits::default());
    let mut cursor = fixture.cache.watch_after(Range::All, 10).unwrap();
    (11..=15).for_each(|revision| fixture.put("a/x", "", revision));
    let mut seen = 0;
    assert_eq!(cursor.read(2, 20, |_| seen += 1).unwrap(), 12);
    cursor.wait().await;
    assert_eq!(cursor.read(10, 20, |_| seen += 1).unwrap(), 20);
    assert_eq!(seen, 5);
}

#[test]
fn watchers_fall_when_the_cache_is_loaded_again() {
    let fixture = Fixture::new(LogLimits::default());
    fixture.put("a/x", "", 11);
    let mut idle = fixture.cache.watch_after(Range::Namespace("b".into()), 11).unwrap();
    assert_eq!(drain(&mut idle), "");
    fixture.cache.load(vec![("a/y".into(), object("y", "", 20))], 21);
    assert_eq!(fixture.keys_at(Range::All, "", 21).unwrap(), "a/y@20");
    assert_eq!(drain(&mut idle), "fallen 21");
    fixture.put("b/x", "", 22);
    let mut new = fixture.cache.watch_after(Range::All, 21).unwrap();
    assert_eq!(drain(&mut new), "b/x@22");
}
