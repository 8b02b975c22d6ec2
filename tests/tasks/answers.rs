//! Answers in passages, of a model whose logits are known: each token's depend on the token alone.

use std::collections::BTreeMap;

use bertlet::format::Encoding;
use bertlet::format::writer::Writer;
use bertlet::tasks::{Answer, Answered, Question, TaskError, WindowPlan};
use bertlet_convert::bert::{Linear, Matrix};
use bertlet_convert::{load, pack, source};
use serde_json::{Value, json};

use crate::Loaded;
use crate::command::bertlet;
use crate::common::{Folder, checkpoint, writer_extras};

/// A model with these logits of start and end for these tokens, and 0 for all others.
///
/// Embeddings are rows of a Hadamard matrix, which the norms leave as they are; all else is zero.
fn model(logits: &[(&str, [f32; 2])]) -> Writer {
    let source = source::open(&checkpoint("micro-qa"), source::OpenOptions::default()).unwrap();
    let (mut bert, _) = load::bert(&source, false).unwrap();
    let hidden = bert.config.hidden_size;
    let row = |i: usize| (0..hidden).map(move |j| 1.0 - 2.0 * ((i & j).count_ones() % 2) as f32);
    let zero = |linear: &mut Linear| {
        linear.weight.data.fill(0.0);
        linear.bias.fill(0.0);
    };
    let place = |token: &str| logits.iter().position(|(other, _)| *other == token);
    assert!(logits.len() + 1 < hidden);
    let words = source.vocabulary.iter().map(|token| place(token).map_or(hidden - 1, |i| i + 1));
    bert.embeddings.word.data = words.flat_map(row).collect();
    bert.embeddings.position.data.fill(0.0);
    bert.embeddings.token_type.data.fill(0.0);
    let mut norms = vec![&mut bert.embeddings.norm];
    for layer in &mut bert.layers {
        let all = [&mut layer.query, &mut layer.key, &mut layer.value, &mut layer.attention_output];
        all.into_iter().for_each(zero);
        zero(&mut layer.intermediate);
        zero(&mut layer.output);
        norms.extend([&mut layer.attention_norm, &mut layer.output_norm]);
    }
    for norm in norms {
        norm.weight.fill(1.0);
        norm.bias.fill(0.0);
    }
    let mut weight = Matrix { rows: 2, cols: hidden, data: vec![0.0; 2 * hidden] };
    for (i, (_, logits)) in logits.iter().enumerate() {
        for (out, logit) in weight.data.chunks_exact_mut(hidden).zip(logits) {
            out.iter_mut().zip(row(i + 1)).for_each(|(w, x)| *w += logit * x / hidden as f32);
        }
    }
    bert.heads.question_answering = Some(Linear { weight, bias: vec![0.0; 2] });
    pack::float(&bert, Encoding::F32, &writer_extras("micro-qa"))
}

/// Tokens of a window.
const LIMIT: usize = 32;

/// The `top` answers, with windows that share `overlap` tokens at least.
fn answers<'t>(
    loaded: &Loaded,
    passage: &'t str,
    (max_answer, overlap): (usize, Option<usize>),
    top: usize,
) -> Result<(Vec<Answer<'t>>, Answered), TaskError> {
    let mut best = vec![Answer::default(); top];
    let question = Question { text: "who", max_answer };
    let answered = loaded.run(LIMIT, overlap, |runner| {
        runner.answers(question, passage, &mut [0.0; 2 * LIMIT], &mut best)
    })?;
    best.truncate(answered.count);
    Ok((best, answered))
}

#[test]
fn no_answer_has_a_score() {
    let words = [("paris", [4.0, 4.0]), ("london", [3.0, 3.0])];
    let passage = "mary was in paris and john in london";
    for (cls, none) in [(9.0, true), (-9.0, false)] {
        let loaded = Loaded::of(&model(&[&words[..], &[("[CLS]", [cls; 2])]].concat()));
        let (found, answered) = answers(&loaded, passage, (3, None), 2).unwrap();
        let e = |x: f32| f64::from(x).exp();
        // Ten tokens: [CLS], eight words of which two count, no special ones.
        let sum = e(cls) + e(4.0) + e(3.0) + 6.0;
        let near = |x: f32, y: f64| assert!((f64::from(x) - y).abs() < 1e-5, "{x} {y}");
        near(answered.no_answer, (e(cls) / sum).powi(2));
        assert_eq!(answered.is_none(&found), none);
        let texts: Vec<_> = found.iter().map(|answer| answer.text).collect();
        assert_eq!(texts, ["paris", "london"]);
        near(found[0].score, (e(4.0) / sum).powi(2));
        near(found[1].score, (e(3.0) / sum).powi(2));
        // Of several windows the lowest counts: one that has an answer is enough.
        let long = format!("{} {passage}", "the city and ".repeat(40));
        let (_, windows) = answers(&loaded, &long, (3, Some(8)), 2).unwrap();
        assert!(windows.run.windows > 3 && windows.no_answer <= answered.no_answer);

        // As the session and the command tell it.
        let folder = Folder::new("no-answer");
        let path = folder.0.join("model.bertlet");
        model(&[&words[..], &[("[CLS]", [cls; 2])]].concat()).save(&path).unwrap();
        let mut session = bertlet::Session::open(&path).unwrap();
        let question = Question { text: "who", max_answer: 3 };
        let of_session = session.answers(question, passage, 2).unwrap();
        assert_eq!(of_session.no_answer.to_bits(), answered.no_answer.to_bits());
        let texts = of_session.answers.iter().map(|answer| &answer.text[..]);
        assert!(texts.eq(["paris", "london"]));
        assert!(session.answers(question, passage, 0).unwrap().answers.is_empty());
        assert_eq!(session.answer(question, "").unwrap(), None);

        let name = path.to_str().unwrap();
        let ask = ["answer", name, "--question", "who", "--max-answer", "3"];
        let text = ["--text", passage];
        let plain = &bertlet(&[&ask[..], &text].concat(), "").unwrap()[0];
        let keys: Vec<_> = plain.as_object().unwrap().keys().map(String::as_str).collect();
        let units = ["start", "end", "start_char", "end_char", "start_utf16", "end_utf16"];
        assert_eq!(keys, [&["text"][..], &units, &["score", "no_answer"]].concat());
        assert_eq!((&plain["text"], &plain["start"]), (&json!("paris"), &json!(12)));
        assert_eq!(plain["no_answer"].as_f64() > plain["score"].as_f64(), none);
        // As `handle_impossible_answer` of transformers.
        let may = &bertlet(&[&ask[..], &text, &["--no-answer"]].concat(), "").unwrap()[0];
        if none {
            assert_eq!((&may["text"], &may["score"]), (&json!(""), &plain["no_answer"]));
            assert!(units.iter().all(|unit| may[unit] == 0), "{may}");
        } else {
            assert_eq!(may, plain);
        }
        let top = ["--top", "2"];
        let list = &bertlet(&[&ask[..], &text, &top].concat(), "").unwrap()[0];
        assert_eq!(list["no_answer"], plain["no_answer"]);
        assert_eq!((&list["text"], &list["score"]), (&plain["text"], &plain["score"]));
        let texts = |answer: &Value| -> Vec<String> {
            let list = answer["answers"].as_array().unwrap().iter();
            list.map(|answer| answer["text"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(texts(list), ["paris", "london"]);
        assert_eq!(list["answers"][1]["start"], 30);

        // In ids, ranges count tokens.
        let tokens =
            bertlet(&["tokenize", name, "--text", &format!("who\t{passage}")], "").unwrap();
        let ids = ["answer", name, "--ids", "--max-answer", "3", "--top", "2"];
        let by_ids = &bertlet(&ids, &tokens[0].to_string()).unwrap()[0];
        assert_eq!(by_ids["no_answer"], plain["no_answer"]);
        assert_eq!((texts(by_ids), &by_ids["text"]), (texts(list), &plain["text"]));
        // [CLS], the tokens of `who`, [SEP].
        let before = tokens[0]["token_type_ids"].as_array().unwrap().iter().filter(|t| **t == 0);
        assert_eq!(by_ids["start"], before.count() + 3);
        assert_eq!(by_ids["end"].as_u64(), by_ids["start"].as_u64().map(|start| start + 1));
    }
}

#[test]
fn answers_differ_in_their_texts() {
    let loaded = Loaded::of(&model(&[("paris", [5.0, 5.0]), ("[CLS]", [-9.0; 2])]));
    let passage = "paris and paris or paris, and paris";
    let (found, _) = answers(&loaded, passage, (4, None), 6).unwrap();
    assert_eq!((found.len(), found[0].text), (6, "paris"));
    for (i, answer) in found.iter().enumerate() {
        assert!(found[..i].iter().all(|other| other.text != answer.text), "{found:?}");
        assert!(i == 0 || found[i - 1].score >= answer.score);
        assert_eq!(answer.text, &passage[answer.start.byte as usize..answer.end.byte as usize]);
    }
    // The same word in several windows is one answer.
    let long = format!("the city {}", passage.repeat(9));
    let (found, answered) = answers(&loaded, &long, (1, Some(12)), 9).unwrap();
    assert!(answered.run.windows > 3);
    let texts: Vec<_> = found.iter().map(|answer| answer.text).collect();
    assert_eq!((texts[0], texts.iter().filter(|text| **text == "paris").count()), ("paris", 1));
    assert_eq!(answers(&loaded, passage, (4, None), 0).unwrap().0, []);
}

#[test]
fn no_answer_is_lost_where_a_window_ends() {
    let loaded =
        Loaded::of(&model(&[("paris", [9.0, 0.0]), ("london", [0.0, 9.0]), ("[CLS]", [-9.0; 2])]));
    // `who`: three tokens.
    let room = LIMIT - 3 - loaded.model().tokenizer().unwrap().count("who").unwrap();
    for max_answer in [2, 7, 15, room - 1, room] {
        for distance in
            [1, max_answer / 2, max_answer - 1].into_iter().filter(|d| (1..max_answer).contains(d))
        {
            for before in 0..room + 5 {
                let filler = |n: usize| "and ".repeat(n);
                let answer = format!("paris {}london", filler(distance.saturating_sub(1)));
                let passage = format!("{}{answer} {}", filler(before), filler(2 * room - before));
                let (found, _) = answers(&loaded, &passage, (max_answer, Some(0)), 1).unwrap();
                assert_eq!(found[0].text, answer, "{max_answer} {distance} {before}");
            }
        }
    }
    // An answer that no window holds.
    let long = "and ".repeat(2 * room);
    let error = answers(&loaded, &long, (room + 1, Some(0)), 1).err();
    let need = LIMIT + 1;
    assert_eq!(error, Some(TaskError::EncoderTooShort { need, have: LIMIT }));
    assert!(answers(&loaded, "a short passage", (usize::MAX, Some(0)), 1).is_ok());
    assert!(answers(&loaded, &long, (usize::MAX, None), 1).unwrap().1.run.truncated);
}

/// Trying all spans of all windows, in f64, with words of several tokens that windows cut.
#[test]
fn answers_are_those_of_all_spans() {
    let words = ["paris", "mary", "bank", "xyz", "good", "qq", "berlin"];
    let tokens = ["paris", "mary", "bank", "x", "##y", "##z", "good", "q", "##q", "berlin"];
    let mut state = 5u32;
    let mut random = |n: u32| {
        state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        (state >> 16) % n
    };
    for round in 0..60 {
        let logits: Vec<_> = tokens
            .iter()
            .chain(&["[CLS]"])
            .map(|token| (*token, [0; 2].map(|_| random(900) as f32 / 100.0 - 3.0)))
            .collect();
        let loaded = Loaded::of(&model(&logits));
        let tokenizer = loaded.model().tokenizer().unwrap();
        let mut passage = String::new();
        for _ in 0..10 + random(80) {
            passage += words[random(words.len() as u32) as usize];
            passage.push(' ');
        }
        let (max_answer, overlap, top) =
            (1 + random(12) as usize, random(9) as usize, 1 + random(5) as usize);
        let (found, answered) =
            answers(&loaded, &passage, (max_answer, Some(overlap)), top).unwrap();

        let all: Vec<_> = tokenizer.tokens(&passage[..]).map(Result::unwrap).collect();
        let logit = |token: &str, which: usize| {
            let found = logits.iter().find(|(name, _)| *name == token);
            f64::from(found.map_or(0.0, |(_, logits)| logits[which]))
        };
        let room = LIMIT - 3 - tokenizer.count("who").unwrap();
        let plan = WindowPlan::new(all.len(), room, overlap.max(max_answer - 1));
        assert_eq!(plan.count(), answered.run.windows);
        let mut best = BTreeMap::<&str, f64>::new();
        let mut no_answer = 1.0f64;
        for window in (0..plan.count()).map(|i| plan.window(i)) {
            let e = |t: usize, which| logit(tokenizer.token(all[t].id).unwrap(), which).exp();
            let cls = [0, 1].map(|which| logit("[CLS]", which).exp());
            let sum =
                [0, 1].map(|which| cls[which] + window.clone().map(|t| e(t, which)).sum::<f64>());
            no_answer = no_answer.min(cls[0] / sum[0] * cls[1] / sum[1]);
            for first in window.clone() {
                for last in first..window.end.min(first + max_answer) {
                    let score = e(first, 0) / sum[0] * e(last, 1) / sum[1];
                    let in_word = |t: usize| {
                        let word = all[t].word;
                        all.iter().filter(move |token| token.word == word)
                    };
                    let start = in_word(first).map(|token| token.start).min().unwrap() as usize;
                    let end = in_word(last).map(|token| token.end).max().unwrap() as usize;
                    let most = best.entry(&passage[start..end]).or_default();
                    *most = most.max(score);
                }
            }
        }
        let mut scores: Vec<_> = best.values().copied().collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(found.len(), top.min(scores.len()));
        for (answer, expected) in found.iter().zip(scores) {
            let score = f64::from(answer.score);
            assert!((score - expected).abs() < 1e-5 * expected.max(1e-3), "{round} {answer:?}");
            assert!(
                (score - best[answer.text]).abs() < 1e-5 * score.max(1e-3),
                "{round} {answer:?}"
            );
        }
        assert!((f64::from(answered.no_answer) - no_answer).abs() < 1e-5, "{round}");
    }
}

#[test]
fn an_answer_beyond_a_window_is_an_error_of_the_command() {
    let folder = Folder::new("beyond");
    let path = folder.0.join("model.bertlet");
    model(&[("paris", [9.0, 9.0])]).save(&path).unwrap();
    let ask = ["answer", path.to_str().unwrap(), "--question", "who", "--window", "--max-answer"];
    let long = "paris and ".repeat(90);
    let (message, status) = bertlet(&[&ask[..], &["99"]].concat(), &long).unwrap_err();
    assert_eq!(status, 1);
    assert!(message.contains("line 1: --max-answer 99: the passage needs windows"), "{message}");
    assert_eq!(bertlet(&[&ask[..], &["40"]].concat(), &long).unwrap()[0]["text"], "paris");
    assert_eq!(bertlet(&[&ask[..], &["99"]].concat(), "in paris").unwrap()[0]["text"], "paris");
}
