//! The f32 model as in the paper (arXiv 1810.04805). Converted files are compared with it, and the quantiser
//! calibrates on its activations.
//!
//! Every result has the same bits on any machine and with any number of threads: products are summed in a
//! defined order ([`matmul`]), elementary functions come from `libm` (plain Rust) and not from the system, and
//! norms and softmax sum in f64, in order. This makes converted files reproducible, as the rounding decisions of
//! the quantiser depend on these values.
//!
//! Results that are not stored in a file, such as the scores of `evaluate`, may use the products of [`fast`]. The
//! functions that end in `_by` take either.

mod attention;
pub mod fast;
pub mod matmul;

use std::ops::Range;

use rayon::prelude::*;

use crate::bert::{Activation, Bert, Config, Layer, LayerNorm, Linear, Matrix};
pub use attention::{AttentionArithmetic, FloatAttention, Qkv, attention, softmax};

/// A function that computes a linear layer, `x * weight^T + bias`: [`matmul::linear`] or [`fast::linear`].
pub type LinearFn = fn(x: &Matrix, weight: &Matrix, bias: &[f32]) -> Matrix;

/// One input: token ids and token types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids, `[CLS]` and `[SEP]` included.
    pub ids: Vec<u32>,
    /// Token type of each token.
    pub types: Vec<u32>,
}

impl Sequence {
    /// A sequence with token type 0.
    pub fn single(ids: Vec<u32>) -> Self {
        let types = vec![0; ids.len()];
        Self { ids, types }
    }
}

/// The linear layers of an encoder layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinearKind {
    /// Query, key and value, which share their input.
    Qkv,
    /// The output projection of the attention.
    AttentionOutput,
    /// The first feed-forward matrix.
    Intermediate,
    /// The second feed-forward matrix.
    Output,
}

impl LinearKind {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Self; 4] = [Self::Qkv, Self::AttentionOutput, Self::Intermediate, Self::Output];
}

/// The logits of the heads for a batch. `None` if the checkpoint does not have the head.
#[derive(Clone, Debug, Default)]
pub struct Logits {
    /// `[tokens, labels]`.
    pub token_classifier: Option<Matrix>,
    /// `[sequences, labels]`.
    pub sequence_classifier: Option<Matrix>,
    /// `[tokens, vocab]`.
    pub masked_lm: Option<Matrix>,
    /// `[sequences, 2]`.
    pub next_sentence: Option<Matrix>,
    /// `[tokens, 2]`.
    pub question_answering: Option<Matrix>,
}

/// The rows of every sequence in a batch: sequences follow each other, without padding.
pub fn spans(batch: &[Sequence]) -> Vec<Range<usize>> {
    let mut start = 0;
    batch
        .iter()
        .map(|sequence| {
            let span = start..start + sequence.ids.len();
            start = span.end;
            span
        })
        .collect()
}

/// Hidden state 0, `[tokens, hidden]`: the normalised sum of the three embeddings.
///
/// # Panics
/// If a sequence is empty, or an id, a position or a token type lies outside its table.
pub fn embed(bert: &Bert, batch: &[Sequence]) -> Matrix {
    let tables = &bert.embeddings;
    let mut data = Vec::new();
    for sequence in batch {
        assert!(!sequence.ids.is_empty(), "a sequence has tokens");
        for (position, (&id, &kind)) in sequence.ids.iter().zip(&sequence.types).enumerate() {
            let word = tables.word.row(id as usize);
            let place = tables.position.row(position);
            let kind = tables.token_type.row(kind as usize);
            data.extend(word.iter().zip(kind).zip(place).map(|((w, k), p)| w + k + p));
        }
    }
    let cols = bert.config.hidden_size;
    let mut x = Matrix { rows: data.len() / cols, cols, data };
    layer_norm(&mut x, &tables.norm, bert.config.layer_norm_eps);
    x
}

/// One encoder layer: attention, add & norm, feed-forward, add & norm.
///
/// `attend` computes queries, keys, values and the context. `linear` computes the other three linear layers.
/// `norms` are those after the attention and after the feed-forward network.
pub(crate) fn layer(
    config: &Config,
    norms: [&LayerNorm; 2],
    x: &Matrix,
    attend: impl FnOnce(&Matrix) -> Matrix,
    linear: impl Fn(LinearKind, &Matrix) -> Matrix,
) -> Matrix {
    let context = attend(x);
    let mut attended = linear(LinearKind::AttentionOutput, &context);
    drop(context);
    add(&mut attended, x);
    layer_norm(&mut attended, norms[0], config.layer_norm_eps);

    let mut inner = linear(LinearKind::Intermediate, &attended);
    activate(&mut inner, config.hidden_act);
    let mut out = linear(LinearKind::Output, &inner);
    add(&mut out, &attended);
    layer_norm(&mut out, norms[1], config.layer_norm_eps);
    out
}

fn layer_by(
    linear: LinearFn,
    bert: &Bert,
    index: usize,
    x: &Matrix,
    spans: &[Range<usize>],
) -> Matrix {
    let Layer {
        query,
        key,
        value,
        attention_output,
        attention_norm,
        intermediate,
        output,
        output_norm,
    } = &bert.layers[index];
    let apply = |x: &Matrix, layer: &Linear| linear(x, &layer.weight, &layer.bias);
    let heads = bert.config.num_attention_heads;
    layer(
        &bert.config,
        [attention_norm, output_norm],
        x,
        |x| {
            let (q, k, v) = (apply(x, query), apply(x, key), apply(x, value));
            attention::<FloatAttention>(Qkv::separate(&q, &k, &v), spans, heads)
        },
        |kind, x| match kind {
            LinearKind::AttentionOutput => apply(x, attention_output),
            LinearKind::Intermediate => apply(x, intermediate),
            LinearKind::Output => apply(x, output),
            LinearKind::Qkv => unreachable!("part of the attention"),
        },
    )
}

/// All hidden states, embeddings first: `layers + 1` matrices `[tokens, hidden]`.
pub fn hidden_states(bert: &Bert, batch: &[Sequence]) -> Vec<Matrix> {
    hidden_states_by(matmul::linear, bert, batch)
}

/// [`hidden_states`], with any product.
pub fn hidden_states_by(linear: LinearFn, bert: &Bert, batch: &[Sequence]) -> Vec<Matrix> {
    let spans = spans(batch);
    let mut states = vec![embed(bert, batch)];
    for index in 0..bert.layers.len() {
        let next = layer_by(linear, bert, index, &states[index], &spans);
        states.push(next);
    }
    states
}

/// `tanh(W h[CLS] + b)` of the last hidden state, `[sequences, hidden]`.
pub fn pooler(bert: &Bert, last: &Matrix, batch: &[Sequence]) -> Option<Matrix> {
    pooler_by(matmul::linear, bert, last, batch)
}

fn pooler_by(linear: LinearFn, bert: &Bert, last: &Matrix, batch: &[Sequence]) -> Option<Matrix> {
    let pooler = bert.pooler.as_ref()?;
    let mut first = Matrix { rows: batch.len(), cols: last.cols, data: Vec::new() };
    for span in spans(batch) {
        first.data.extend_from_slice(last.row(span.start));
    }
    let mut pooled = linear(&first, &pooler.weight, &pooler.bias);
    activate(&mut pooled, Activation::Tanh);
    Some(pooled)
}

/// The logits of every head.
pub fn logits(bert: &Bert, last: &Matrix, batch: &[Sequence]) -> Logits {
    logits_by(matmul::linear, bert, last, batch)
}

/// [`logits`], with any product.
pub fn logits_by(linear: LinearFn, bert: &Bert, last: &Matrix, batch: &[Sequence]) -> Logits {
    let apply = |x: &Matrix, head: &Linear| linear(x, &head.weight, &head.bias);
    let pooled = pooler_by(linear, bert, last, batch);
    let heads = &bert.heads;
    Logits {
        token_classifier: heads.token_classifier.as_ref().map(|head| apply(last, head)),
        sequence_classifier: heads
            .sequence_classifier
            .as_ref()
            .and_then(|(head, _)| Some(apply(pooled.as_ref()?, head))),
        masked_lm: heads.masked_lm.as_ref().map(|head| {
            let mut x = apply(last, &head.transform);
            activate(&mut x, bert.config.hidden_act);
            layer_norm(&mut x, &head.norm, bert.config.layer_norm_eps);
            linear(&x, head.decoder.as_ref().unwrap_or(&bert.embeddings.word), &head.bias)
        }),
        next_sentence: heads
            .next_sentence
            .as_ref()
            .and_then(|head| Some(apply(pooled.as_ref()?, head))),
        question_answering: heads.question_answering.as_ref().map(|head| apply(last, head)),
    }
}

/// Normalises every row, in place.
pub fn layer_norm(x: &mut Matrix, norm: &LayerNorm, eps: f32) {
    let cols = x.cols;
    x.data.par_chunks_mut(cols).for_each(|row| {
        let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / cols as f64;
        let square = |x: f32| (f64::from(x) - mean) * (f64::from(x) - mean);
        let variance = row.iter().map(|&x| square(x)).sum::<f64>() / cols as f64;
        let inverse = 1.0 / libm::sqrt(variance + f64::from(eps));
        for ((x, weight), bias) in row.iter_mut().zip(&norm.weight).zip(&norm.bias) {
            *x = ((f64::from(*x) - mean) * inverse) as f32 * weight + bias;
        }
    });
}

/// Applies an activation function, in place.
pub fn activate(x: &mut Matrix, activation: Activation) {
    let f = match activation {
        Activation::Gelu => {
            |x: f32| 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
        }
        Activation::GeluTanh => |x: f32| {
            let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + libm::tanhf(inner))
        },
        Activation::Relu => |x: f32| x.max(0.0),
        Activation::Silu => |x: f32| x / (1.0 + libm::expf(-x)),
        Activation::Tanh => |x: f32| libm::tanhf(x),
    };
    x.data.par_chunks_mut(4096).for_each(|chunk| chunk.iter_mut().for_each(|x| *x = f(*x)));
}

/// `x += y`.
pub fn add(x: &mut Matrix, y: &Matrix) {
    for (x, y) in x.data.iter_mut().zip(&y.data) {
        *x += y;
    }
}
