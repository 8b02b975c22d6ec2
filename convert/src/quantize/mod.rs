//! From f32 to int8: rotate, calibrate, round.

pub mod gptq;
pub mod hadamard;
pub mod simulate;
pub mod text;

pub use gptq::{Factor, QuantizedMatrix};
pub use hadamard::Rotation;

use std::collections::BTreeSet;

use half::f16;

use crate::bert::{Bert, Config, Heads, LayerNorm, Linear, Matrix};
use crate::reference::matmul::{Packed, cross, gram, linear, product};
use crate::reference::{self, Sequence, Site, activate, add, layer_norm, spans};
use simulate::QuantizedRows;

/// A linear layer in eight bits: `y = s_x * s_w * (q_x . q_w) + bias`, with `q_x`, `s_x` from the rotated row
/// `H (x - center)`.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedLinear {
    /// `[outputs, inputs]`, in the rotated basis.
    pub weight: QuantizedMatrix,
    /// `[outputs]`, with what the center adds.
    pub bias: Vec<f32>,
    /// What the runtime multiplies inputs by before it rounds them.
    pub rotation: Rotation,
    /// What the runtime takes off inputs before it rotates them.
    pub center: Option<Vec<f32>>,
    /// What the runtime multiplies inputs by before it rotates them.
    pub smooth: Option<Vec<f32>>,
}

/// A linear layer of an int8 file.
#[derive(Clone, Debug, PartialEq)]
pub enum Projection {
    /// In eight bits.
    Int8(QuantizedLinear),
    /// Kept finer: every value is one that f16 holds. Head rotations are folded in all the same.
    Full(Linear),
}

/// The word embedding table.
#[derive(Clone, Debug, PartialEq)]
pub enum Words {
    /// Values that f16 holds.
    Half(Matrix),
    /// Eight bits with a scale for every `group` neighbours of a row.
    Int8 {
        /// Columns of the table.
        cols: usize,
        /// Columns that share a scale; `cols` means one scale a row.
        group: usize,
        /// `rows * cols`.
        values: Vec<i8>,
        /// `rows * ceil(cols / group)`; values that f16 holds unless there is one a row.
        scales: Vec<f32>,
    },
}

/// One encoder layer.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedLayer {
    /// `[3 * hidden, hidden]`: queries of all heads, keys of all heads, values of all heads.
    pub qkv: Projection,
    /// Output projection of the attention; its input is rotated already (see [`fold_heads`]).
    pub attention_output: Projection,
    /// Norm after the attention.
    pub attention_norm: LayerNorm,
    /// First feed-forward matrix.
    pub intermediate: Projection,
    /// Second feed-forward matrix.
    pub output: Projection,
    /// Norm after the feed-forward network.
    pub output_norm: LayerNorm,
}

/// A whole model in eight bits.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedBert {
    /// Its shape.
    pub config: Config,
    /// Word embeddings.
    pub words: Words,
    /// Position embeddings, values that f16 holds.
    pub positions: Matrix,
    /// Token type embeddings, values that f16 holds.
    pub token_types: Matrix,
    /// Norm of the sum of the embeddings.
    pub embedding_norm: LayerNorm,
    /// Encoder layers.
    pub layers: Vec<QuantizedLayer>,
    /// Values that f16 holds.
    pub pooler: Option<Linear>,
    /// Values that f16 holds.
    pub heads: Heads,
}

/// How word embeddings are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordFormat {
    /// f16.
    Half,
    /// Eight bits, one scale for so many neighbours; 0 means one a row.
    Int8(usize),
}

/// Which inputs the rounding minds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// Those of the f32 model.
    Reference,
    /// Those that the quantised layers before give, in full precision.
    Quantized,
    /// Those that the quantised layers before give, rounded to eight bits.
    Rounded,
}

/// Everything that can be chosen. The default is what was measured to be best.
#[derive(Clone, Debug)]
pub struct Options {
    /// GPTQ rounding; otherwise to nearest.
    pub gptq: bool,
    /// Share of the mean diagonal added to the second moments.
    pub damping: f64,
    /// Round the columns with the largest inputs first.
    pub by_activation: bool,
    /// Shares of the largest magnitude to try as a row's range.
    pub clips: Vec<f32>,
    /// Which inputs the rounding minds.
    pub inputs: Inputs,
    /// Rotations of the inputs of Qkv, AttentionOutput (after the heads' own), Intermediate and Output; `None`: the
    /// largest block up to 128 (none for AttentionOutput).
    pub rotations: [Option<Rotation>; 4],
    /// Which inputs lose their mean before they are rotated, in the order of `rotations`.
    pub center: [bool; 4],
    /// Exponents of the smoothing of inputs, in the order of `rotations`; 0 for none.
    pub smooth: [f64; 4],
    /// Take the mean off keys (no effect on the softmax) and values (moved into the next bias).
    pub center_heads: bool,
    /// Set biases so that the mean error over the calibration text is zero.
    pub correct_bias: bool,
    /// Share of the least-squares correction of weights for errors made so far; 0 for none.
    pub compensate: f64,
    /// Damping of that correction.
    pub compensate_damping: f64,
    /// Word embeddings.
    pub words: WordFormat,
    /// Linear layers kept in f16.
    pub keep: BTreeSet<(usize, Site)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            gptq: true,
            damping: 0.01,
            by_activation: false,
            clips: vec![1.0],
            inputs: Inputs::Rounded,
            rotations: [None; 4],
            center: [false; 4],
            smooth: [0.0; 4],
            center_heads: false,
            correct_bias: true,
            compensate: 0.0,
            compensate_damping: 0.01,
            words: WordFormat::Int8(0),
            keep: BTreeSet::new(),
        }
    }
}

/// Rounds to what f16 holds.
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
    /// Takes the rotated context.
    pub attention_output: Linear,
}

/// The rotation of every head of a model: the largest power of two that divides the head size.
pub fn head_rotation(config: &Config) -> Rotation {
    let size = config.hidden / config.heads;
    Rotation::largest(size, size.next_power_of_two())
}

/// Fuses query, key and value, and rotates every head by [`head_rotation`]: products of queries and keys stay as
/// they are, and what values gain the output projection takes back.
pub fn fold_heads(bert: &Bert, index: usize) -> FoldedHeads {
    let layer = &bert.layers[index];
    let mut qkv = Linear {
        weight: Matrix { rows: 3 * bert.config.hidden, cols: bert.config.hidden, data: Vec::new() },
        bias: Vec::new(),
    };
    for part in [&layer.query, &layer.key, &layer.value] {
        qkv.weight.data.extend(&part.weight.data);
        qkv.bias.extend(&part.bias);
    }
    let rotation = head_rotation(&bert.config);
    rotation.fold_outputs(&mut qkv);
    let mut attention_output = layer.attention_output.clone();
    rotation.fold_inputs(&mut attention_output);
    FoldedHeads { qkv, attention_output }
}

/// Quantises the word embeddings.
pub fn quantize_words(table: &Matrix, format: WordFormat) -> Words {
    let group = match format {
        WordFormat::Half => return Words::Half(half_matrix(table)),
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
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let round = |&x: &f32| (x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
            values.extend(part.iter().map(round));
            scales.push(scale);
        }
    }
    Words::Int8 { cols: table.cols, group, values, scales }
}

/// Quantises a model, layer by layer, on the calibration text `batch`. `progress` hears how many of how many
/// linear layers are done.
pub fn quantize(
    bert: &Bert,
    batch: &[Sequence],
    options: &Options,
    progress: &mut dyn FnMut(usize, usize),
) -> QuantizedBert {
    let mut quantized = QuantizedBert {
        config: bert.config.clone(),
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

fn half_heads(heads: &Heads) -> Heads {
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

/// The calibration text on its way through the model: as it should be, and as it is.
struct States {
    reference: Matrix,
    actual: Matrix,
}

fn quantize_layer(
    bert: &Bert,
    index: usize,
    states: &mut States,
    spans: &[std::ops::Range<usize>],
    options: &Options,
    done: &mut dyn FnMut(),
) -> QuantizedLayer {
    let Config { hidden, heads, eps, activation, .. } = bert.config;
    let layer = &bert.layers[index];
    let FoldedHeads { mut qkv, mut attention_output } = fold_heads(bert, index);
    let fit = |site, linear: &Linear, x: &States, target: Matrix| {
        fit(linear, x, target, site, options, options.keep.contains(&(index, site)))
    };

    let mut target = linear(&states.reference, &qkv.weight, &qkv.bias);
    if options.center_heads {
        let mut shift = mean(&target);
        shift[..hidden].fill(0.0);
        qkv.bias.iter_mut().zip(&shift).for_each(|(b, s)| *b -= s);
        for row in target.data.chunks_exact_mut(3 * hidden) {
            row.iter_mut().zip(&shift).for_each(|(x, s)| *x -= s);
        }
        for (bias, row) in
            attention_output.bias.iter_mut().zip(attention_output.weight.data.chunks_exact(hidden))
        {
            *bias += row.iter().zip(&shift[2 * hidden..]).map(|(w, s)| w * s).sum::<f32>();
        }
    }
    let context = reference::attention(
        &columns(&target, 0, hidden),
        &columns(&target, hidden, hidden),
        &columns(&target, 2 * hidden, hidden),
        spans,
        heads,
    );
    let qkv = fit(Site::Qkv, &qkv, states, target);
    done();

    let context = States {
        reference: context,
        actual: simulate::attention(&simulate::project(&states.actual, &qkv), spans, heads),
    };
    let (attention_output, attended) = {
        let mut target =
            linear(&context.reference, &attention_output.weight, &attention_output.bias);
        add(&mut target, &states.reference);
        let mut reference = target.clone();
        subtract(&mut target, &states.actual);
        let projection = fit(Site::AttentionOutput, &attention_output, &context, target);
        let mut actual = simulate::project(&context.actual, &projection);
        add(&mut actual, &states.actual);
        layer_norm(&mut reference, &layer.attention_norm, eps);
        layer_norm(&mut actual, &layer.attention_norm, eps);
        (projection, States { reference, actual })
    };
    drop(context);
    done();

    let target = linear(&attended.reference, &layer.intermediate.weight, &layer.intermediate.bias);
    let mut reference = target.clone();
    activate(&mut reference, activation);
    let intermediate = fit(Site::Intermediate, &layer.intermediate, &attended, target);
    let mut actual = simulate::project(&attended.actual, &intermediate);
    activate(&mut actual, activation);
    let inner = States { reference, actual };
    done();

    let mut target = linear(&inner.reference, &layer.output.weight, &layer.output.bias);
    add(&mut target, &attended.reference);
    let mut reference = target.clone();
    subtract(&mut target, &attended.actual);
    let output = fit(Site::Output, &layer.output, &inner, target);
    let mut actual = simulate::project(&inner.actual, &output);
    add(&mut actual, &attended.actual);
    layer_norm(&mut reference, &layer.output_norm, eps);
    layer_norm(&mut actual, &layer.output_norm, eps);
    *states = States { reference, actual };
    done();

    QuantizedLayer {
        qkv,
        attention_output,
        attention_norm: layer.attention_norm.clone(),
        intermediate,
        output,
        output_norm: layer.output_norm.clone(),
    }
}

/// Quantises one linear layer so that on `x.actual` it gives what comes nearest to `target`.
fn fit(
    linear: &Linear,
    x: &States,
    mut target: Matrix,
    site: Site,
    options: &Options,
    keep: bool,
) -> Projection {
    if keep {
        return Projection::Full(half_linear(linear));
    }
    let n = linear.weight.cols;
    let at = site as usize;
    let rotation = options.rotations[at].unwrap_or(match site {
        Site::AttentionOutput => Rotation::NONE,
        _ => Rotation::largest(n, 128),
    });
    let mut layer = QuantizedLinear {
        weight: QuantizedMatrix::default(),
        bias: linear.bias.clone(),
        rotation,
        center: options.center[at].then(|| mean(&x.actual)),
        smooth: None,
    };
    if options.smooth[at] > 0.0 {
        layer.smooth = Some(smoothing(&x.actual, &linear.weight, options.smooth[at]));
    }
    let mut weight = linear.weight.clone();
    if let Some(center) = &layer.center {
        for (bias, row) in layer.bias.iter_mut().zip(weight.data.chunks_exact(n)) {
            *bias += row.iter().zip(center).map(|(w, c)| w * c).sum::<f32>();
        }
    }
    weight.data.chunks_exact_mut(n).for_each(|row| {
        if let Some(smooth) = &layer.smooth {
            row.iter_mut().zip(smooth).for_each(|(w, s)| *w /= s);
        }
        rotation.apply(row);
    });
    if !options.gptq {
        layer.weight = QuantizedMatrix::nearest(&weight);
        return Projection::Int8(layer);
    }

    let rotated = |x: &Matrix| {
        let mut x = x.clone();
        for row in x.data.chunks_exact_mut(n) {
            if let Some(center) = &layer.center {
                row.iter_mut().zip(center).for_each(|(x, c)| *x -= c);
            }
            if let Some(smooth) = &layer.smooth {
                row.iter_mut().zip(smooth).for_each(|(x, s)| *x *= s);
            }
            rotation.apply(row);
        }
        x
    };
    let mut inputs = match options.inputs {
        Inputs::Reference => rotated(&x.reference),
        Inputs::Quantized => rotated(&x.actual),
        Inputs::Rounded => QuantizedRows::new(&x.actual, &layer).dequantize(),
    };
    let input_mean = mean(&inputs);
    let target_mean = mean(&target);
    if options.correct_bias {
        for row in inputs.data.chunks_exact_mut(n) {
            row.iter_mut().zip(&input_mean).for_each(|(x, m)| *x -= m);
        }
    }
    let moments = gram(&inputs);
    if options.compensate > 0.0 {
        // What the weights as they are leave open on the inputs as they are.
        let bias: &[f32] = if options.correct_bias { &target_mean } else { &layer.bias };
        let plain = reference::matmul::linear(&inputs, &weight, bias);
        subtract(&mut target, &plain);
        drop(plain);
        let open = cross(&inputs, &target, false);
        let factor = Factor::new(&moments, n, options.compensate_damping, false);
        let change = factor.solve(&open, weight.rows);
        for (r, row) in weight.data.chunks_exact_mut(n).enumerate() {
            for (k, w) in row.iter_mut().enumerate() {
                *w += (change[k * linear.weight.rows + r] * options.compensate) as f32;
            }
        }
    }
    drop(inputs);
    drop(target);
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
    Projection::Int8(layer)
}

/// `(|W_j| / |x_j|)^exponent` for every input `j`.
fn smoothing(x: &Matrix, weight: &Matrix, exponent: f64) -> Vec<f32> {
    let (x, w) = (column_rms(x), column_rms(weight));
    let ratio = |(&x, &w): (&f64, &f64)| {
        if x > 0.0 && w > 0.0 { libm::pow(w / x, exponent) as f32 } else { 1.0 }
    };
    x.iter().zip(&w).map(ratio).collect()
}

/// Root mean square of every column.
fn column_rms(x: &Matrix) -> Vec<f64> {
    let mut sums = vec![0f64; x.cols];
    for row in x.data.chunks_exact(x.cols) {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
    sums.iter().map(|sum| libm::sqrt(sum / x.rows as f64)).collect()
}

fn subtract(x: &mut Matrix, y: &Matrix) {
    for (x, y) in x.data.iter_mut().zip(&y.data) {
        *x -= y;
    }
}

/// Mean of every column.
fn mean(x: &Matrix) -> Vec<f32> {
    let mut sums = vec![0f64; x.cols];
    for row in x.data.chunks_exact(x.cols) {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x));
    }
    sums.iter().map(|sum| (sum / x.rows as f64) as f32).collect()
}

fn columns(x: &Matrix, start: usize, count: usize) -> Matrix {
    let rows = x.data.chunks_exact(x.cols);
    let data = rows.flat_map(|row| &row[start..start + count]).copied().collect();
    Matrix { rows: x.rows, cols: count, data }
}

/// The rotated product in plain numbers, for tests and reports.
pub fn rotated_product(x: &Matrix, weight: &Matrix, rotation: Rotation) -> Matrix {
    let rotate = |m: &Matrix| {
        let mut m = m.clone();
        m.data.chunks_exact_mut(m.cols).for_each(|row| rotation.apply(row));
        m
    };
    product(&rotate(x), &Packed::weight(&rotate(weight)))
}
