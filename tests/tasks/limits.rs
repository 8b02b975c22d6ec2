//! What a file states of its texts: the limit, the prompts, the activation of scores.

use bertlet::format::{Encoding, ProblemType, ScoreActivation};
use bertlet::heads::ScoreFunction;
use bertlet::tasks::{Features, TaskError};
use bertlet::tokenizer::{Limits, TokenBuffer};
use bertlet::{Input, Model, RunError, SectionKind, SequenceClassifier, Session};
use bertlet_convert::pack::{self, Extras};
use bertlet_convert::{load, source};

use crate::Loaded;
use crate::common::{self, Weights};

fn ids(model: &Model<'_>, text: &str, limit: usize) -> Vec<u32> {
    let mut ids = vec![0; limit];
    let mut buffer = TokenBuffer { input_ids: &mut ids, ..Default::default() };
    let tokenizer = model.tokenizer().unwrap();
    let length = tokenizer.encode(text, None, &Limits::new(limit), &mut buffer).unwrap().len;
    ids.truncate(length);
    ids
}

#[test]
fn texts_are_cut_to_the_limit_of_the_file_and_ids_are_not() {
    let writer = common::writer("micro", Weights::F32, |extras| extras.max_tokens = 12);
    let loaded = Loaded::of(&writer);
    let model = loaded.model();
    assert_eq!((model.max_tokens(), model.config().max_position_embeddings), (12, 64));
    let long = &*"hello world, ".repeat(30);
    let (cut_ids, all_ids) = (ids(&model, long, 12), ids(&model, long, 64));
    assert_eq!((cut_ids.len(), all_ids.len()), (12, 64));

    let mut session = Session::new(model);
    let cut = session.embed(long).unwrap();
    assert!(cut.truncated);
    assert_eq!(cut.values, session.embed(Input::new(&cut_ids)).unwrap().values);
    let all = session.embed(Input::new(&all_ids)).unwrap();
    assert!(!all.truncated && all.values != cut.values);
    let wide = Session::new(model).with_max_tokens(64).unwrap().embed(long).unwrap();
    assert!(wide.truncated);
    assert_eq!(wide.values, all.values);
    let error = Session::new(model).with_max_tokens(65).unwrap_err();
    assert_eq!(error, RunError::TooManyTokens { have: 65, limit: 64 });

    // Without a session, and in windows of the limit's size.
    let features = Features::of(&model);
    let mut out = vec![0.0; cut.values.len()];
    loaded.run(64, None, |runner| {
        assert_eq!(runner.max_tokens(), 12);
        assert!(runner.embed(long, &features, &mut out, &mut []).unwrap().truncated);
    });
    assert_eq!(out, cut.values);
    let windows = loaded.run(64, Some(3), |runner| {
        let each = runner.each_window(long, |_, window| {
            assert!(window.input.input_ids.len() <= 12);
            Ok(())
        });
        each.unwrap()
    });
    assert!(windows.windows > 10 && !windows.truncated);
    // An encoder for fewer tokens has its own limit.
    assert_eq!(loaded.run(8, None, |runner| runner.max_tokens()), 8);
    assert_eq!(Loaded::new("micro", Weights::F32).model().max_tokens(), 64);
}

fn prompted(default: usize) -> Loaded {
    let mut writer = common::writer("micro", Weights::F32, |_| ());
    let prompts = [("query", "hello: "), ("part", "hel"), ("empty", "")];
    let prompts = prompts.map(|(name, text)| (name.to_owned(), text.to_owned()));
    writer.prompts(&prompts, Some(default));
    Loaded::of(&writer)
}

#[test]
fn the_default_prompt_stands_before_embedded_texts() {
    let (loaded, plain) = (prompted(0), Loaded::new("micro", Weights::F32));
    let model = loaded.model();
    let mut with = Session::new(model);
    let mut without = Session::new(plain.model());
    let expected = without.embed("hello: world").unwrap();
    assert_ne!(expected, without.embed("world").unwrap());
    assert_eq!(with.embed("world").unwrap(), expected);
    let pair = without.embed(("hello: world", "the end")).unwrap();
    assert_eq!(with.embed(("world", "the end")).unwrap(), pair);
    // The runner, which does not join texts, has the same bits.
    let features = Features::of(&model);
    let mut out = vec![0.0; expected.values.len()];
    loaded.run(64, None, |runner| {
        runner.embed("world", &features, &mut out, &mut []).unwrap();
        assert_eq!(out, expected.values);
        runner.embed(("world", "the end"), &features, &mut out, &mut []).unwrap();
        assert_eq!(out, pair.values);
    });
    // Ids have no prompt; a session may have another or none.
    let world = ids(&model, "world", 64);
    assert_eq!(with.embed(Input::new(&world)).unwrap(), without.embed("world").unwrap());
    let mut none = Session::new(model).with_prompt("");
    assert_eq!(none.embed("world").unwrap(), without.embed("world").unwrap());
    let part = model.prompts().named("part").unwrap().text;
    let mut part = Session::new(model).with_prompt(part);
    assert_eq!(part.embed("lo world").unwrap(), without.embed("hello world").unwrap());
    assert_eq!(model.prompts().len(), 3);
    assert_eq!(model.prompts().named("world"), None);
}

#[test]
fn a_prompt_that_would_be_torn_from_its_word_is_an_error() {
    let loaded = prompted(1);
    let features = Features::of(&loaded.model());
    let mut out = vec![0.0; loaded.model().config().hidden_size];
    loaded.run(64, None, |runner| {
        let error = runner.embed("lo world", &features, &mut out, &mut []);
        assert_eq!(error, Err(TaskError::PromptInWord));
        runner.embed(" world", &features, &mut out, &mut []).unwrap();
    });
}

#[test]
fn one_output_has_a_sigmoid_and_stated_activations_count() {
    let path = common::checkpoint("micro-sequence-classification");
    let source = source::open(&path, Default::default()).unwrap();
    let (mut bert, _) = load::bert(&source, false).unwrap();
    let mut function = |problem, score_activation, outputs: usize| {
        let (head, stated) = bert.heads.sequence_classifier.as_mut().unwrap();
        *stated = problem;
        head.weight.rows = outputs;
        head.weight.data.truncate(outputs * head.weight.cols);
        head.bias.truncate(outputs);
        let labels = source.config.labels(outputs);
        let extras = Extras { labels, score_activation, ..Extras::default() };
        let loaded = Loaded::of(&pack::float(&bert, Encoding::F32, &extras));
        let head = SequenceClassifier::new(&loaded.model()).unwrap();
        let mut scores = vec![0.5; outputs];
        head.scores(&mut scores);
        let expected = match head.score_function() {
            ScoreFunction::Identity => 0.5,
            ScoreFunction::Sigmoid => 1.0 / (1.0 + (-0.5f32).exp()),
            ScoreFunction::Softmax => 1.0 / outputs as f32,
        };
        assert!(scores.iter().all(|score| (score - expected).abs() < 1e-6));
        head.score_function()
    };
    use ProblemType::{MultiLabel, Regression, SingleLabel};
    use ScoreActivation::{Identity, OfProblem, Sigmoid};
    assert_eq!(function(SingleLabel, OfProblem, 3), ScoreFunction::Softmax);
    assert_eq!(function(SingleLabel, Sigmoid, 3), ScoreFunction::Sigmoid);
    assert_eq!(function(SingleLabel, Identity, 3), ScoreFunction::Identity);
    assert_eq!(function(SingleLabel, OfProblem, 1), ScoreFunction::Sigmoid);
    assert_eq!(function(MultiLabel, OfProblem, 1), ScoreFunction::Sigmoid);
    assert_eq!(function(Regression, OfProblem, 1), ScoreFunction::Identity);
    assert_eq!(function(SingleLabel, Identity, 1), ScoreFunction::Identity);
    assert_eq!(function(Regression, Sigmoid, 1), ScoreFunction::Sigmoid);
    assert_eq!(SectionKind::Prompts as u32, 68);
}
