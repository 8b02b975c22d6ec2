//! Labels, vectors and answers of texts.

use bertlet::heads::SequenceClassifier;
use bertlet::tasks::{
    Answer, Features, RunInfo, TaskError, TextRunner, WindowPlan, WordFeatures, WordPooling,
};
use bertlet::tokenizer::TokenBuffer;
use bertlet::{Encoder, Input, Isa, Layers, Pooling, TooSmall};

use crate::Loaded;
use crate::common::Weights;

#[test]
fn a_long_text_has_the_mean_of_its_windows() {
    let loaded = Loaded::new("tiny-sst2", Weights::F32);
    let model = loaded.model();
    let (head, tokenizer) = (SequenceClassifier::new(&model).unwrap(), model.tokenizer().unwrap());
    let text = "A quiet triumph, funny and humane. ".repeat(40);
    let text = &text[..];
    let (limit, overlap) = (32, 8);
    let (mut logits, mut window) = ([0.0; 2], [0.0; 2]);
    loaded.run(limit, Some(overlap), |runner| {
        let run = runner.classify(text, &mut logits, &mut window).unwrap();

        let tokens: Vec<u32> = tokenizer.tokens(text).map(|token| token.unwrap().id).collect();
        let plan = WindowPlan::new(tokens.len(), limit - 2, overlap);
        assert_eq!((run.truncated, run.windows), (false, plan.count()));
        let mut sum = [0.0; 2];
        for i in 0..plan.count() {
            let mut ids = vec![tokenizer.cls_id()];
            ids.extend(&tokens[plan.window(i)]);
            ids.push(tokenizer.sep_id());
            head.logits(runner.encoder(), &Input::new(&ids), &mut window).unwrap();
            sum.iter_mut().zip(window).for_each(|(sum, x)| *sum += x);
        }
        assert_eq!(logits, sum.map(|sum| sum / plan.count() as f32), "to the bit");

        let size = TooSmall { what: "the values of a window", need: 2, have: 1 };
        let error = runner.classify(text, &mut logits, &mut window[..1]).err();
        assert_eq!(error, Some(TaskError::TooSmall(size)));
        let features = Features { layers: Layers::LAST, pooling: Pooling::None, normalize: false };
        let error = runner.embed(text, &features, &mut [], &mut []).err();
        assert_eq!(error, Some(TaskError::NotPooled));
        runner.set_overlap(None);
        let run = runner.classify(text, &mut logits, &mut []).unwrap();
        assert!(run.truncated && run.windows == 1);
    });
    let mut scratch = vec![0; model.config().scratch_len(limit)];
    let encoder = Encoder::new(model, Isa::detect(), &mut scratch, limit).unwrap();
    let buffer = TokenBuffer { input_ids: &mut [0; 32], ..TokenBuffer::default() };
    let mut runner = TextRunner::new(encoder, buffer);
    let error = runner.classify(("a", "b"), &mut logits, &mut window);
    assert!(matches!(error, Err(TaskError::TooSmall(TooSmall { what: "token types", .. }))));
    assert!(runner.classify("a", &mut logits, &mut window).is_ok(), "types may be left out");
}

#[test]
fn an_error_has_its_source() {
    use std::error::Error;
    let error = TaskError::TooSmall(TooSmall { what: "ids", need: 2, have: 1 });
    let source = error.source().unwrap();
    assert_eq!(source.to_string(), "the buffer for ids has 1 elements and 2 are needed");
    assert!(TaskError::NotPooled.source().is_none());
}

fn answer<'t>(
    loaded: &Loaded,
    question: &str,
    passage: &'t str,
    overlap: Option<usize>,
) -> Result<(Option<Answer<'t>>, RunInfo), TaskError> {
    loaded.run(64, overlap, |runner| runner.answer(question, passage, &mut [0.0; 128]))
}

#[test]
fn answers_are_slices_of_the_passage() {
    let loaded = Loaded::new("micro-qa", Weights::F32);
    let passage = "the market 😀 in berlin was good, hello world";
    let (found, run) = answer(&loaded, "where is mary", passage, None).unwrap();
    let found = found.unwrap();
    assert!(!run.truncated && !found.text.is_empty() && found.score > 0.0);
    assert_eq!(found.text, &passage[found.start.byte as usize..found.end.byte as usize]);
    assert!(!found.text.starts_with(' ') && !found.text.ends_with(' '));
    assert_eq!(answer(&loaded, "where", "", None).unwrap().0, None);

    let long = passage.repeat(30);
    let (cut, run) = answer(&loaded, "where", &long, None).unwrap();
    assert!(run.truncated);
    let (best, run) = answer(&loaded, "where", &long, Some(20)).unwrap();
    assert!(!run.truncated && run.windows > 5);
    assert!(best.unwrap().score >= cut.unwrap().score, "the first window is one of all");

    let question = "where ".repeat(70);
    let error = answer(&loaded, &question, passage, None).err();
    assert!(matches!(error, Some(TaskError::EncoderTooShort { have: 64, .. })), "{error:?}");
    let error =
        loaded.run(64, None, |runner| runner.answer("where", passage, &mut [0.0; 127]).err());
    assert!(matches!(error, Some(TaskError::TooSmall(TooSmall { what: "logits", .. }))));
    loaded.run(64, None, |runner| {
        assert!(matches!(
            runner.answer_overlap(&question[..]),
            Err(TaskError::EncoderTooShort { have: 64, .. })
        ));
    });
}

#[test]
fn words_get_vectors_of_their_tokens() {
    let loaded = Loaded::new("tiny-ner", Weights::F32);
    let model = loaded.model();
    let tokenizer = model.tokenizer().unwrap();
    let words = ["Frankfurt", "\u{200b}", "unbelievable", "."];
    let tokens: Vec<_> = tokenizer.tokens(&words[..]).map(Result::unwrap).collect();
    let layers = Layers::one(-2);
    let width = model.config().hidden_size;
    loaded.run(64, None, |runner| {
        let mut vectors = Vec::new();
        let each = Features { layers, pooling: Pooling::None, normalize: false };
        let each_window = runner.each_window(&words[..], |encoder, window| {
            vectors.resize(window.input.input_ids.len() * width, 0.0);
            Ok(encoder.encode(&window.input, &mut [each.output(&mut vectors)])?)
        });
        assert_eq!(each_window.unwrap().windows, 1);
        for (pooling, index) in [(WordPooling::First, 0), (WordPooling::Last, usize::MAX)] {
            let (mut counts, mut out) = ([0; 4], vec![0.0; 4 * width]);
            let features = WordFeatures { layers, pooling, normalize: false };
            let mut scratch = Vec::new();
            bertlet::with_scratch(&mut scratch, |scratch| {
                runner.word_vectors(&words, &features, scratch, (&mut counts, &mut out))
            })
            .unwrap();
            assert_eq!(counts.iter().sum::<u32>() as usize, tokens.len());
            assert_eq!(counts[1], 0);
            for word in [0, 2, 3] {
                let rows: Vec<usize> =
                    (0..tokens.len()).filter(|t| tokens[*t].word == word as u32).collect();
                let row = rows[index.min(rows.len() - 1)] + 1;
                assert_eq!(out[word * width..][..width], vectors[row * width..][..width]);
            }
        }
    });
}
