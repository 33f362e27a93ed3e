//! The corpus of hostile requests against the codec alone. The same corpus is sent over
//! real sockets elsewhere; here every way of cutting it is tried.

use systole::http::{self, Limits, Progress, Scratch};

#[path = "common/hostile.rs"]
mod hostile;

use hostile::Outcome;

/// Serves a connection on which `bytes` arrive in pieces that end at `cuts`, which rise.
fn serve(bytes: &[u8], cuts: &[usize]) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut start = 0;
    let mut progress = Progress::default();
    let mut scratch = Scratch::new();
    for end in cuts.iter().copied().chain([bytes.len()]) {
        loop {
            let input = &bytes[start..end];
            let request = match http::parse(input, &mut progress, &Limits::default()) {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(problem) => {
                    assert!(problem.close, "what follows a refused head cannot be read");
                    outcomes.push(refusal(&problem));
                    return outcomes;
                }
            };
            let routed = http::route(&request, &mut scratch);
            let outcome = match &routed {
                Ok(_) => Outcome {
                    refusal: None,
                    close: !request.keep_alive,
                },
                Err(problem) => refusal(problem),
            };
            // A body that is refused for good is not waited for.
            if input.len() < request.total_len() && !outcome.close {
                break;
            }
            outcomes.push(outcome);
            if outcome.close {
                return outcomes;
            }
            start += request.total_len();
        }
    }
    outcomes
}

fn refusal(problem: &http::Problem) -> Outcome {
    Outcome {
        refusal: Some(problem.code.status()),
        close: problem.close,
    }
}

#[test]
fn the_corpus_is_large_and_its_names_are_distinct() {
    let cases = hostile::cases();
    assert!(cases.len() >= 100, "{} cases", cases.len());
    let mut names: Vec<_> = cases.iter().map(|case| &case.name).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), cases.len());
}

#[test]
fn every_hostile_request_gets_what_the_corpus_says() {
    let mut wrong = Vec::new();
    for case in hostile::cases() {
        let outcomes = serve(&case.bytes, &[]);
        if outcomes != case.outcomes {
            wrong.push(format!(
                "{}: {outcomes:?}, not {:?}",
                case.name, case.outcomes
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn how_the_bytes_are_cut_changes_nothing() {
    for case in hostile::cases() {
        let len = case.bytes.len();
        if len <= 2_000 {
            for cut in 1..len {
                assert_eq!(
                    serve(&case.bytes, &[cut]),
                    case.outcomes,
                    "{}, cut at {cut}",
                    case.name
                );
            }
        }
        for step in [1, 2, 3, 7, 100, 1_000] {
            let cuts: Vec<_> = (1..len).step_by(step).collect();
            assert_eq!(
                serve(&case.bytes, &cuts),
                case.outcomes,
                "{}, by {step}",
                case.name
            );
        }
    }
}
