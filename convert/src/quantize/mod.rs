//! From f32 to int8: rotate, calibrate, round.
//!
//! The quantiser takes a model layer by layer:
//!
//! 1. It rotates the weights, so that outliers spread over a block and one scale per row is enough
//!    ([`hadamard`]; QuaRot, arXiv 2404.00456).
//! 2. It rounds them with error feedback ([`gptq`]; GPTQ, arXiv 2210.17323). The inputs for that are those
//!    that the layer will see: the outputs of the quantised layers before it on the calibration text, rotated
//!    and in int8.
//! 3. It sets the bias so that the mean output over the calibration text is that of the f32 model.
//!
//! `convert/QUANTIZATION.md` has the measurements behind the default options, and what did not help, such as
//! SmoothQuant (arXiv 2211.10438).
//!
//! # Reproducible
//!
//! The same model, text and options give the same [`StoredBert`] and the same [`Deviation`] to the bit, for any
//! number of threads and on any machine with IEEE arithmetic: see [`crate::reference`]. A test pins the bits.

pub mod deviation;
pub mod gptq;
pub mod hadamard;
pub mod mixed;
pub mod simulate;
pub mod text;

pub use deviation::{Deviation, StateDeviation, deviation};
pub use gptq::{Factor, QuantizedWeight};
pub use hadamard::HadamardRotation;
pub use mixed::{keep_float, keep_for_cosine};

use std::collections::BTreeSet;

use half::f16;

use crate::bert::{Attention, Bert, Config, LayerNorm, Linear, Matrix, TaskHeads};
use crate::reference::matmul::{gram, linear};
use crate::reference::{
    self, FloatAttention, LinearKind, Qkv, Sequence, activate, add, attention, layer_norm, spans,
};
use crate::stored::{Int8Linear, StoredBert, StoredLayer, StoredLinear, WordTable};
use simulate::{Int8Attention, QuantizedRows};

/// How word embeddings are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordFormat {
    /// f16.
    F16,
    /// int8, with one scale per this many columns. 0 means one scale per row.
    Int8(usize),
}

/// Options of the quantiser. `convert/QUANTIZATION.md` has the measurements behind the default.
#[derive(Clone, Debug)]
pub struct QuantizeOptions {
    /// Round with GPTQ. Otherwise round to nearest.
    pub gptq: bool,
    /// Added to the diagonal of the second moments, as a share of its mean.
    pub damping: f64,
    /// Round the columns with the largest inputs first.
    pub by_activation: bool,
    /// Ranges to try for a row, as shares of its largest magnitude.
    pub clips: Vec<f32>,
    /// Rotations of the inputs of each [`LinearKind`]. `None` for [`default_rotation`].
    pub rotations: [Option<HadamardRotation>; 4],
    /// Correct biases so that the mean error over the calibration text is zero.
    pub correct_bias: bool,
    /// Type of the word embeddings.
    pub words: WordFormat,
    /// Linear layers kept in f16.
    pub keep: BTreeSet<(usize, LinearKind)>,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        Self {
            gptq: true,
            damping: 0.01,
            by_activation: false,
            clips: vec![1.0],
            rotations: [None; 4],
            correct_bias: true,
            words: WordFormat::Int8(64),
            keep: BTreeSet::new(),
        }
    }
}

/// Rounds to f16, in place.
fn halve(values: &mut [f32]) {
    values.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32());
}

fn half_matrix(matrix: &Matrix) -> Matrix {
    let mut matrix = matrix.clone();
    halve(&mut matrix.data);
    matrix
}

fn half_linear(linear: &Linear) -> Linear {
    Linear { weight: half_matrix(&linear.weight), bias: linear.bias.clone() }
}

/// The linear layers around the attention, with the rotation of the heads folded in.
#[derive(Clone, Debug, PartialEq)]
pub struct FoldedHeads {
    /// `[3 * hidden, hidden]`: queries, keys, values.
    pub qkv: Linear,
    /// Its input is the rotated context.
    pub attention_output: Linear,
}

/// The rotation of every head of a model: the largest power of two that divides the head size.
pub fn head_rotation(config: &Config) -> HadamardRotation {
    let size = config.hidden_size / config.num_attention_heads;
    HadamardRotation::largest(size, size.next_power_of_two())
}

/// Fuses query, key and value, and rotates every head by [`head_rotation`]. Products of queries and keys do not
/// change, and the output projection undoes the rotation of the values.
pub fn fold_heads(bert: &Bert, index: usize) -> FoldedHeads {
    let layer = &bert.layers[index];
    let mut qkv = layer.fused_qkv();
    let rotation = head_rotation(&bert.config);
    rotation.fold_outputs(&mut qkv);
    let mut attention_output = layer.attention_output.clone();
    rotation.fold_inputs(&mut attention_output);
    FoldedHeads { qkv, attention_output }
}

/// The default rotation of the inputs of a linear layer.
///
/// - Qkv, Intermediate: contiguous blocks of up to 128.
/// - AttentionOutput: the context is already rotated within each head. This rotation mixes up to four heads,
///   at a stride of the head size.
/// - Output: blocks of 32 at a stride of 16, which take five additions per element and no shuffle at any vector
///   width. Where they do not fit, contiguous blocks of up to 128.
pub fn default_rotation(config: &Config, kind: LinearKind) -> HadamardRotation {
    match kind {
        LinearKind::Qkv | LinearKind::Intermediate => {
            HadamardRotation::largest(config.hidden_size, 128)
        }
        LinearKind::AttentionOutput => {
            let stride = config.hidden_size / config.num_attention_heads;
            let block = HadamardRotation::largest(config.num_attention_heads, 4).block;
            if block == 1 { HadamardRotation::NONE } else { HadamardRotation { block, stride } }
        }
        LinearKind::Output if config.intermediate_size.is_multiple_of(512) => {
            HadamardRotation { block: 32, stride: 16 }
        }
        LinearKind::Output => HadamardRotation::largest(config.intermediate_size, 128),
    }
}

/// Quantises the word embeddings.
pub fn quantize_words(table: &Matrix, format: WordFormat) -> WordTable {
    let group = match format {
        WordFormat::F16 => return WordTable::Float(half_matrix(table)),
        WordFormat::Int8(0) => table.cols,
        WordFormat::Int8(group) => group,
    };
    let mut values = Vec::with_capacity(table.data.len());
    let mut scales = Vec::new();
    for row in table.data.chunks_exact(table.cols) {
        for part in row.chunks(group) {
            let mut scale = part.iter().fold(0f32, |max, x| max.max(x.abs())) / 127.0;
            if group < table.cols {
                scale = f16::from_f32(scale).to_f32();
            }
            let inverse = gptq::inverse(scale);
            let round = |&x: &f32| (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
            values.extend(part.iter().map(round));
            scales.push(scale);
        }
    }
    WordTable::Int8 { cols: table.cols, group, values, scales }
}

/// Quantises a model layer by layer, calibrated on `batch`. `progress` is called with the number of linear layers
/// done and their total.
///
/// # Panics
/// If the batch or one of its sequences is empty, or an id, position or token type lies outside its table.
pub fn quantize(
    bert: &Bert,
    batch: &[Sequence],
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> StoredBert {
    assert!(!batch.is_empty(), "the calibration batch is not empty");
    let mut quantized = StoredBert {
        config: Config { attention: Attention::Integer, ..bert.config },
        words: quantize_words(&bert.embeddings.word, options.words),
        positions: half_matrix(&bert.embeddings.position),
        token_types: half_matrix(&bert.embeddings.token_type),
        embedding_norm: bert.embeddings.norm.clone(),
        layers: Vec::new(),
        pooler: bert.pooler.as_ref().map(half_linear),
        heads: half_heads(&bert.heads),
    };
    let mut states = States {
        reference: reference::embed(bert, batch),
        actual: simulate::embed(&quantized, batch),
    };
    let spans = spans(batch);
    let total = 4 * bert.layers.len();
    for index in 0..bert.layers.len() {
        let mut step = 4 * index;
        let layer = quantize_layer(bert, index, &mut states, &spans, options, &mut || {
            step += 1;
            progress(step, total);
        });
        quantized.layers.push(layer);
    }
    quantized
}

fn half_heads(heads: &TaskHeads) -> TaskHeads {
    let mut heads = heads.clone();
    for linear in
        [&mut heads.token_classifier, &mut heads.next_sentence, &mut heads.question_answering]
            .into_iter()
            .flatten()
            .chain(heads.sequence_classifier.as_mut().map(|(linear, _)| linear))
    {
        halve(&mut linear.weight.data);
    }
    if let Some(lm) = &mut heads.masked_lm {
        halve(&mut lm.transform.weight.data);
        if let Some(decoder) = &mut lm.decoder {
            halve(&mut decoder.data);
        }
    }
    heads
}

/// A hidden state of the calibration batch: in the f32 model and in the quantised model.
struct States {
    reference: Matrix,
    actual: Matrix,
}

fn quantize_layer(
    bert: &Bert,
    index: usize,
    states: &mut States,
    spans: &[std::ops::Range<usize>],
    options: &QuantizeOptions,
    done: &mut dyn FnMut(),
) -> StoredLayer {
    let Config { num_attention_heads: heads, layer_norm_eps: eps, hidden_act: activation, .. } =
        bert.config;
    let layer = &bert.layers[index];
    let FoldedHeads { qkv, attention_output } = fold_heads(bert, index);
    let fit = |kind, linear: &Linear, inputs: &Matrix, target: &Matrix| {
        fit(&LinearFit { layer: index, kind, linear, inputs, target }, &bert.config, options)
    };

    let target = linear(&states.reference, &qkv.weight, &qkv.bias);
    let context = attention::<FloatAttention>(Qkv::fused(&target), spans, heads);
    let qkv = fit(LinearKind::Qkv, &qkv, &states.actual, &target);
    done();

    let context = States {
        reference: context,
        actual: attention::<Int8Attention>(
            Qkv::fused(&simulate::project(&states.actual, &qkv)),
            spans,
            heads,
        ),
    };
    // A projection that is added to the states `x`, and the norm of the sum.
    let add_and_norm = |kind, linear_of: &Linear, inputs: &States, x: &States, norm: &LayerNorm| {
        let mut target = linear(&inputs.reference, &linear_of.weight, &linear_of.bias);
        add(&mut target, &x.reference);
        let mut reference = target.clone();
        subtract(&mut target, &x.actual);
        let fitted = fit(kind, linear_of, &inputs.actual, &target);
        let mut actual = simulate::project(&inputs.actual, &fitted);
        add(&mut actual, &x.actual);
        layer_norm(&mut reference, norm, eps);
        layer_norm(&mut actual, norm, eps);
        (fitted, States { reference, actual })
    };
    let (attention_output, attended) = add_and_norm(
        LinearKind::AttentionOutput,
        &attention_output,
        &context,
        states,
        &layer.attention_norm,
    );
    drop(context);
    done();

    let target = linear(&attended.reference, &layer.intermediate.weight, &layer.intermediate.bias);
    let mut reference = target.clone();
    activate(&mut reference, activation);
    let intermediate =
        fit(LinearKind::Intermediate, &layer.intermediate, &attended.actual, &target);
    let mut actual = simulate::project(&attended.actual, &intermediate);
    activate(&mut actual, activation);
    let inner = States { reference, actual };
    done();

    let output;
    (output, *states) =
        add_and_norm(LinearKind::Output, &layer.output, &inner, &attended, &layer.output_norm);
    done();

    StoredLayer {
        qkv,
        attention_output,
        attention_norm: layer.attention_norm.clone(),
        intermediate,
        output,
        output_norm: layer.output_norm.clone(),
    }
}

/// One linear layer to quantise.
struct LinearFit<'a> {
    /// Index of the encoder layer.
    layer: usize,
    kind: LinearKind,
    linear: &'a Linear,
    /// What the layer will be given: `[tokens, inputs]`, from the quantised layers before it.
    inputs: &'a Matrix,
    /// What the layer should give: `[tokens, outputs]`.
    target: &'a Matrix,
}

/// Quantises one linear layer: its outputs for `inputs` come as close to `target` as int8 allows.
fn fit(fit: &LinearFit<'_>, config: &Config, options: &QuantizeOptions) -> StoredLinear {
    let LinearFit { layer: index, kind, linear, inputs, target } = *fit;
    if options.keep.contains(&(index, kind)) {
        return StoredLinear::Float(half_linear(linear));
    }
    let n = linear.weight.cols;
    let rotation =
        options.rotations[kind as usize].unwrap_or_else(|| default_rotation(config, kind));
    let mut layer =
        Int8Linear { weight: QuantizedWeight::default(), bias: linear.bias.clone(), rotation };
    let mut weight = linear.weight.clone();
    weight.data.chunks_exact_mut(n).for_each(|row| rotation.apply(row));
    if !options.gptq {
        layer.weight = QuantizedWeight::nearest(&weight);
        return StoredLinear::Int8(layer);
    }

    // The inputs as the runtime sees them: rotated and in int8.
    let mut inputs = QuantizedRows::new(inputs, rotation).dequantize();
    let input_mean = mean(&inputs);
    let target_mean = mean(target);
    if options.correct_bias {
        for row in inputs.data.chunks_exact_mut(n) {
            row.iter_mut().zip(&input_mean).for_each(|(x, m)| *x -= m);
        }
    }
    let moments = gram(&inputs);
    drop(inputs);
    layer.weight = Factor::new(&moments, n, options.damping, options.by_activation)
        .round(&weight, &options.clips);
    if options.correct_bias {
        let steps = layer.weight.dequantize();
        for ((bias, row), target) in
            layer.bias.iter_mut().zip(steps.data.chunks_exact(n)).zip(&target_mean)
        {
            *bias = target - row.iter().zip(&input_mean).map(|(w, m)| w * m).sum::<f32>();
        }
    }
    StoredLinear::Int8(layer)
}

fn subtract(x: &mut Matrix, y: &Matrix) {
    for (x, y) in x.data.iter_mut().zip(&y.data) {
        *x -= y;
    }
}

/// The mean of every column.
fn mean(x: &Matrix) -> Vec<f32> {
    let mut sums = vec![0f64; x.cols];
    for row in x.data.chunks_exact(x.cols) {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    sums.iter().map(|sum| (sum / x.rows as f64) as f32).collect()
}

#[cfg(test)]
mod tests;
