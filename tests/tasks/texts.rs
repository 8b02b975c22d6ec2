//! Labels, vectors and answers of texts.

use bertlet::heads::{QuestionAnswering, SequenceClassifier};
use bertlet::tasks::{self, Pair, TaskError, WindowPlan, WordPooling};
use bertlet::tokenizer::TokenBuffer;
use bertlet::{Input, Layers, Output, Pooling, features_len};

use crate::Loaded;
use crate::common::Weights;

#[test]
fn a_long_text_has_the_mean_of_its_windows() {
    let loaded = Loaded::new("tiny-sst2", Weights::F32);
    let model = loaded.model();
    let (head, tokenizer) = (SequenceClassifier::new(&model).unwrap(), model.tokenizer().unwrap());
    let text = "A quiet triumph, funny and humane. ".repeat(40);
    let (limit, overlap) = (32, 8);
    let (mut ids, mut logits, mut window) = ([0; 32], [0.0; 2], [0.0; 2]);
    let mut buffer = TokenBuffer { input_ids: &mut ids, ..TokenBuffer::default() };
    loaded.encode(limit, |encoder| {
        let text = Pair::from(&text[..]);
        let run = head
            .classify(
                &tokenizer,
                encoder,
                text,
                Some(overlap),
                &mut buffer,
                &mut logits,
                &mut window,
            )
            .unwrap();

        let tokens: Vec<u32> =
            tokenizer.tokens(text.first).map(|token| token.unwrap().id).collect();
        let plan = WindowPlan::new(tokens.len(), limit - 2, overlap);
        assert_eq!((run.truncated, run.windows), (false, plan.count()));
        let mut sum = [0.0; 2];
        for i in 0..plan.count() {
            let mut ids = vec![tokenizer.cls_id()];
            ids.extend(&tokens[plan.window(i)]);
            ids.push(tokenizer.sep_id());
            head.logits(encoder, &Input::new(&ids), &mut window).unwrap();
            sum.iter_mut().zip(window).for_each(|(sum, x)| *sum += x);
        }
        for (mean, sum) in logits.iter().zip(sum) {
            assert!((mean - sum / plan.count() as f32).abs() < 1e-5);
        }

        let run = head
            .classify(&tokenizer, encoder, text, None, &mut buffer, &mut logits, &mut window)
            .unwrap();
        assert!(run.truncated && run.windows == 1);
        let pair = Pair { first: "a", second: Some("b") };
        let error =
            head.classify(&tokenizer, encoder, pair, None, &mut buffer, &mut logits, &mut window);
        assert!(matches!(error, Err(TaskError::Buffer { what: "type ids", .. })));
    });
}

/// Everything that `tasks::answer` writes into.
struct Memory {
    ids: Vec<u32>,
    type_ids: Vec<u8>,
    offsets: Vec<(u32, u32)>,
    words: Vec<u32>,
    logits: Vec<f32>,
}

impl Memory {
    fn new(tokens: usize) -> Self {
        Self {
            ids: vec![0; tokens],
            type_ids: vec![0; tokens],
            offsets: vec![(0, 0); tokens],
            words: vec![0; tokens],
            logits: vec![0.0; 2 * tokens],
        }
    }

    fn answer<'t>(
        &mut self,
        loaded: &Loaded,
        question: &str,
        passage: &'t str,
        overlap: Option<usize>,
    ) -> Result<(Option<tasks::Answer<'t>>, tasks::RunInfo), TaskError> {
        let model = loaded.model();
        let mut buffer = TokenBuffer {
            input_ids: &mut self.ids,
            token_type_ids: &mut self.type_ids,
            offsets: &mut self.offsets,
            words: &mut self.words,
        };
        loaded.encode(model.config().max_position_embeddings, |encoder| {
            tasks::answer(
                &QuestionAnswering::new(&model).unwrap(),
                &model.tokenizer().unwrap(),
                encoder,
                question,
                passage,
                QuestionAnswering::MAX_ANSWER,
                overlap,
                &mut buffer,
                &mut self.logits,
            )
        })
    }
}

#[test]
fn answers_are_slices_of_the_passage() {
    let loaded = Loaded::new("micro-qa", Weights::F32);
    let mut memory = Memory::new(64);
    let passage = "the market 😀 in berlin was good, hello world";
    let (answer, run) = memory.answer(&loaded, "where is mary", passage, None).unwrap();
    let answer = answer.unwrap();
    assert!(!run.truncated && !answer.text.is_empty() && answer.score > 0.0);
    assert_eq!(answer.text, &passage[answer.start.byte as usize..answer.end.byte as usize]);
    assert!(!answer.text.starts_with(' ') && !answer.text.ends_with(' '));
    assert_eq!(memory.answer(&loaded, "where", "", None).unwrap().0, None);

    let long = passage.repeat(30);
    let (cut, run) = memory.answer(&loaded, "where", &long, None).unwrap();
    assert!(run.truncated);
    let (best, run) = memory.answer(&loaded, "where", &long, Some(20)).unwrap();
    assert!(!run.truncated && run.windows > 5);
    assert!(best.unwrap().score >= cut.unwrap().score, "the first window is one of all");

    let question = "where ".repeat(70);
    let error = memory.answer(&loaded, &question, passage, None).err();
    assert!(matches!(error, Some(TaskError::EncoderTooShort { have: 64, .. })), "{error:?}");
    let error = Memory::new(63).answer(&loaded, "where", passage, None).err();
    assert!(matches!(error, Some(TaskError::Buffer { what: "ids", .. })));
}

#[test]
fn words_get_vectors_of_their_tokens() {
    let loaded = Loaded::new("tiny-ner", Weights::F32);
    let model = loaded.model();
    let tokenizer = model.tokenizer().unwrap();
    let words = ["Frankfurt", "\u{200b}", "unbelievable", "."];
    let tokens: Vec<_> = tokenizer.tokens(&words[..]).map(Result::unwrap).collect();
    let ids: Vec<u32> = tokens.iter().map(|token| token.id).collect();
    let of: Vec<u32> = tokens.iter().map(|token| token.word).collect();
    let (layers, pooling) = (Layers::one(-2), Pooling::None);
    let width = model.config().hidden_size;
    let mut vectors = vec![0.0; features_len(model.config(), ids.len(), &layers, pooling).unwrap()];
    loaded.encode(64, |encoder| {
        let out = &mut vectors[..];
        let features = Output::Features { layers, pooling, normalize: false, out };
        encoder.encode(&Input::new(&ids), &mut [features]).unwrap();
    });
    for (pooling, index) in [(WordPooling::First, 0), (WordPooling::Last, usize::MAX)] {
        let (mut counts, mut out) = ([0; 4], vec![0.0; 4 * width]);
        tasks::pool_words(&vectors, &of, pooling, &mut counts, &mut out).unwrap();
        assert_eq!(counts.iter().sum::<u32>() as usize, ids.len());
        assert_eq!(counts[1], 0);
        for word in [0, 2, 3] {
            let places: Vec<usize> = (0..of.len()).filter(|t| of[*t] == word as u32).collect();
            let place = places[index.min(places.len() - 1)];
            assert_eq!(out[word * width..][..width], vectors[place * width..][..width]);
        }
    }
}
