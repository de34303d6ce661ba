use super::*;

fn zone(name: &str) -> TimeZone {
    time_zone(name).unwrap()
}

/// The times after `from`, as clocks in the zone show them.
#[track_caller]
fn fires(schedule: &str, zone_name: &str, from: &str, expect: &[&str]) {
    let (schedule, zone) = (Schedule::parse(schedule).unwrap(), zone(zone_name));
    let mut at: Timestamp = from.parse().unwrap();
    let mut found = Vec::new();
    for _ in expect {
        let Some(next) = schedule.next(at, &zone) else {
            found.push("never".to_owned());
            break;
        };
        at = next;
        found.push(at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
    }
    assert_eq!(found, expect, "{schedule:?}");
}

#[test]
fn fields_and_macros() {
    let from = "2026-01-30T23:58:30.5Z";
    fires("* * * * *", "UTC", from, &["2026-01-30T23:59:00+00:00", "2026-01-31T00:00:00+00:00"]);
    fires("*/15 2-4 * * ?", "UTC", from, &["2026-01-31T02:00:00+00:00", "2026-01-31T02:15:00+00:00"]);
    fires("59/1 * * * *", "UTC", from, &["2026-01-30T23:59:00+00:00", "2026-01-31T00:59:00+00:00"]);
    fires("0 12 1 jan,JUL *", "UTC", from, &["2026-07-01T12:00:00+00:00", "2027-01-01T12:00:00+00:00"]);
    fires("@hourly", "UTC", from, &["2026-01-31T00:00:00+00:00", "2026-01-31T01:00:00+00:00"]);
    fires("@weekly", "UTC", from, &["2026-02-01T00:00:00+00:00", "2026-02-08T00:00:00+00:00"]);
    fires("@yearly", "UTC", from, &["2027-01-01T00:00:00+00:00", "2028-01-01T00:00:00+00:00"]);
    fires("@every 1h30m", "UTC", from, &["2026-01-31T01:28:30+00:00", "2026-01-31T02:58:30+00:00"]);
    fires("@every 10ms", "UTC", from, &["2026-01-30T23:58:31+00:00"]);
    // Either of day and weekday, unless one is a star.
    fires("0 0 13 * fri", "UTC", from, &["2026-02-06T00:00:00+00:00", "2026-02-13T00:00:00+00:00"]);
    fires("0 0 13 * *", "UTC", from, &["2026-02-13T00:00:00+00:00", "2026-03-13T00:00:00+00:00"]);
    fires("0 0 29 2 *", "UTC", from, &["2028-02-29T00:00:00+00:00"]);
    fires("59 23 31 2 *", "UTC", from, &["never"]);
}

#[test]
fn clocks_change() {
    let from = "2026-03-07T12:00:00Z";
    // 02:30 does not exist on 8 March in New York.
    fires("30 2 * * *", "America/New_York", from, &["2026-03-09T02:30:00-04:00", "2026-03-10T02:30:00-04:00"]);
    // 01:30 comes twice on 1 November.
    let from = "2026-10-31T12:00:00Z";
    fires("30 1 * * *", "America/New_York", from, &["2026-11-01T01:30:00-04:00", "2026-11-01T01:30:00-05:00"]);
    // Midnight did not exist on that day in São Paulo.
    let from = "2018-11-03T12:00:00Z";
    fires("0 0 * * *", "America/Sao_Paulo", from, &["2018-11-05T00:00:00-02:00"]);
    fires("30 * * * *", "Asia/Kolkata", "2026-01-01T00:00:00Z", &["2026-01-01T06:30:00+05:30"]);
}

#[test]
fn clocks_change_as_for_upstream() {
    let lines = include_str!("clock_changes.txt").lines().filter(|line| !line.starts_with('#'));
    for line in lines {
        let [zone_name, from, text, expect] = line.split('|').collect::<Vec<_>>().try_into().unwrap();
        let (schedule, zone) = (Schedule::parse(text).unwrap(), zone(zone_name));
        let mut at: Timestamp = from.parse().unwrap();
        let starts = std::iter::from_fn(|| {
            at = schedule.next(at, &zone)?;
            Some(at.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M%:z").to_string())
        });
        assert_eq!(starts.take(6).collect::<Vec<_>>().join(" "), expect, "{text:?} in {zone_name} from {from}");
    }
}

#[test]
fn what_is_no_schedule() {
    #[track_caller]
    fn check(text: &str, why: &str) {
        assert_eq!(Schedule::parse(text).unwrap_err().to_string(), why);
    }
    check("", "empty spec string");
    check("* * * *", "expected exactly 5 fields, found 4: [* * * *]");
    check("60 * * * *", "end of range (60) above maximum (59): 60");
    check("* * 0 * *", "beginning of range (0) below minimum (1): 0");
    check("5-2 * * * *", "beginning of range (5) beyond end of range (2): 5-2");
    check("*/0 * * * *", "step of range should be a positive number: */0");
    check("1-2-3 * * * *", "too many hyphens: 1-2-3");
    check("1/2/3 * * * *", "too many slashes: 1/2/3");
    check("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax");
    check("TZ=Mars 0 1 * * *", "provided bad location Mars: unknown time zone Mars");
    assert!(Schedule::parse("CRON_TZ=Europe/Paris 0 1 * * *").is_ok() && zone_of("TZ=Europe/Paris @daily").is_some());
    check("@never", "unrecognized descriptor: @never");
    check("@every 5", "failed to parse duration @every 5: time: missing unit in duration \"5\"");
    check("@every soon", "failed to parse duration @every soon: time: invalid duration \"soon\"");
    check("@every 5x", "failed to parse duration @every 5x: time: unknown unit \"x\" in duration \"5x\"");
}

#[test]
fn zones_by_their_exact_name() {
    for (name, known) in
        [("UTC", true), ("Etc/UTC", true), ("Europe/Berlin", true), ("europe/berlin", false), ("Mars", false)]
    {
        assert_eq!(time_zone(name).is_some(), known, "{name}");
    }
}
