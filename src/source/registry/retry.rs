//! When a request to a registry is repeated: it is busy, or fails temporarily.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

/// How many times a request is repeated.
const MAX_RETRIES: u32 = 2;
/// The pause before the first repetition. Each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a registry may ask for. A build waits for it.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// How long to wait before a request is repeated that has been repeated `retries` times. `None`
/// where the answer is final, or the registry asks for a longer pause than a build is to wait.
pub fn pause(status: StatusCode, headers: &HeaderMap, retries: u32) -> Option<Duration> {
    let is_for_now = matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    if !is_for_now || retries >= MAX_RETRIES {
        return None;
    }
    let asked = headers.get(RETRY_AFTER).and_then(|value| {
        let value = value.to_str().ok()?.trim();
        match value.parse() {
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => {
                let until = httpdate::parse_http_date(value).ok()?;
                Some(until.duration_since(SystemTime::now()).unwrap_or_default())
            }
        }
    });
    let pause = asked.unwrap_or(PAUSE * 2_u32.pow(retries));
    (pause <= MAX_PAUSE).then_some(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(status: u16, value: Option<&str>, retries: u32) -> Option<Duration> {
        let value = value.map(|value| (RETRY_AFTER, value.parse().unwrap()));
        let status = StatusCode::from_u16(status).unwrap();
        pause(status, &HeaderMap::from_iter(value), retries)
    }

    #[test]
    fn a_busy_registry_is_asked_again_when_it_says() {
        assert_eq!(after(429, Some("2"), 0), Some(Duration::from_secs(2)));
        assert_eq!(after(503, Some("0"), 1), Some(Duration::ZERO));
        let past = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(after(503, Some(past), 0), Some(Duration::ZERO));
        assert_eq!(after(429, Some("3600"), 0), None);
        assert_eq!(after(429, Some("99999999999999999999"), 0), Some(PAUSE));
        let far = "Fri, 31 Dec 9999 23:59:59 GMT";
        assert_eq!(after(429, Some(far), 0), None);
    }

    #[test]
    fn pauses_are_few_and_grow() {
        let pauses: Vec<_> = (0..).map_while(|retry| after(500, None, retry)).collect();
        assert_eq!(pauses, [PAUSE, PAUSE * 2]);
    }

    #[test]
    fn a_final_answer_is_final() {
        for status in [200, 400, 401, 403, 404, 416, 501] {
            assert_eq!(after(status, Some("1"), 0), None);
        }
    }
}
