//! Fills the outputs of a forward pass as its hidden states come by.

use super::scratch::{CHUNK, Quantised, Worker};
use super::{Input, Output, Pass, features_len};
use crate::error::RunError;
use crate::features::{Combine, Layers, Pick, Pooling, Selection};
use crate::format::{Linear, Model, SectionKind};
use crate::kernels::{Activation, F32x16, flat, flat_mut, sqrt};

/// Checks that the model can fill `outputs`, and returns how many layers that takes.
pub(super) fn check(
    model: &Model<'_>,
    tokens: usize,
    outputs: &[Output<'_>],
) -> Result<usize, RunError> {
    let config = model.config();
    let mut combined_maxima = 0;
    let mut last = 0;
    for output in outputs {
        let (need, have, layers) = match output {
            Output::Features { layers, pooling, out, .. } => {
                let need = features_len(config, tokens, layers, *pooling)?;
                if *pooling == Pooling::Pooler && model.section(SectionKind::Pooler).is_none() {
                    return Err(RunError::MissingHead(SectionKind::Pooler));
                }
                let selection = selection(layers, config.num_hidden_layers);
                if is_combined_maximum(&selection, *pooling) {
                    combined_maxima += 1;
                }
                (need, out.len(), selection.highest())
            }
            Output::Logits { head, out } => {
                if !on_pooler(*head) && !on_tokens(*head) {
                    return Err(RunError::NotAHead(*head));
                }
                let section = model.section(*head).ok_or(RunError::MissingHead(*head))?;
                let rows = if on_pooler(*head) { 1 } else { tokens };
                (rows * section.rows, out.len(), config.num_hidden_layers)
            }
            Output::MaskedLm { positions, out } => {
                if model.section(SectionKind::MaskedLmTransform).is_none() {
                    return Err(RunError::MissingHead(SectionKind::MaskedLmTransform));
                }
                if let Some(position) = positions.iter().find(|p| **p >= tokens) {
                    return Err(RunError::NoSuchPosition(*position));
                }
                (
                    positions.len().saturating_mul(config.vocab_size),
                    out.len(),
                    config.num_hidden_layers,
                )
            }
            Output::Attention { layer, out } => {
                if *layer >= config.num_hidden_layers {
                    let layer = i16::try_from(*layer).unwrap_or(i16::MAX);
                    return Err(RunError::NoSuchLayer { layer, layers: config.num_hidden_layers });
                }
                (
                    tokens.saturating_mul(tokens).saturating_mul(config.num_attention_heads),
                    out.len(),
                    layer + 1,
                )
            }
        };
        if need != have {
            return Err(RunError::Output { need, have });
        }
        last = last.max(layers);
    }
    if combined_maxima > 1 {
        return Err(RunError::TwoCombinedMaxima);
    }
    Ok(last)
}

fn selection(layers: &Layers, count: usize) -> Selection {
    layers.resolve(count).expect("features_len resolved it")
}

/// Whether the maximum can be taken only after the layers have been combined.
fn is_combined_maximum(selection: &Selection, pooling: Pooling) -> bool {
    matches!(pooling, Pooling::Max | Pooling::MeanMax) && selection.combine != Combine::Concat
}

/// HeadShape that give one answer a sequence.
fn on_pooler(head: SectionKind) -> bool {
    matches!(head, SectionKind::SequenceClassifier | SectionKind::NextSentence)
}

/// HeadShape that give one answer a token.
fn on_tokens(head: SectionKind) -> bool {
    matches!(head, SectionKind::TokenClassifier | SectionKind::QuestionAnswering)
}

/// Where the probabilities of layer `i` are wanted.
pub(super) fn attention_of_layer<'m>(
    i: usize,
    outputs: &'m mut [Output<'_>],
) -> Option<&'m mut [f32]> {
    outputs.iter_mut().find_map(|output| match output {
        Output::Attention { layer, out } if *layer == i => Some(&mut **out),
        _ => None,
    })
}

/// Copies the probabilities of layer `i` to other outputs that want them, too.
pub(super) fn share_attention(i: usize, outputs: &mut [Output<'_>]) {
    let wants =
        |output: &Output<'_>| matches!(output, Output::Attention { layer, .. } if *layer == i);
    let Some(first) = outputs.iter().position(wants) else { return };
    let (filled, others) = outputs.split_at_mut(first + 1);
    let Output::Attention { out: from, .. } = &filled[first] else { return };
    for output in others {
        match output {
            Output::Attention { layer, out } if *layer == i => out.copy_from_slice(from),
            _ => {}
        }
    }
}

/// Fills the outputs of one pass.
pub(super) struct Collector<'c, 's> {
    pass: &'c Pass<'c>,
    mask: Option<&'c [u8]>,
    tokens: usize,
    /// `[tokens][hidden]`, for [`is_combined_maximum`].
    combined: &'s mut [F32x16],
}

impl<'c, 's> Collector<'c, 's> {
    pub fn new(pass: &'c Pass<'c>, input: &Input<'c>, combined: &'s mut [F32x16]) -> Self {
        Self { pass, mask: input.attention_mask, tokens: input.input_ids.len(), combined }
    }

    /// The first `hidden` values of each row of `states`.
    fn rows<'r>(&self, states: &'r [F32x16]) -> impl Iterator<Item = &'r [f32]> + use<'r> {
        let hidden = self.pass.config.hidden_size;
        states.chunks_exact(self.pass.sizes.hidden).map(move |row| &flat(row)[..hidden])
    }

    /// The rows of unmasked tokens.
    fn live<'r>(&self, states: &'r [F32x16]) -> impl Iterator<Item = &'r [f32]> + use<'r, 'c> {
        let mask = self.mask;
        let live = move |t: &usize| mask.is_none_or(|mask| mask[*t] != 0);
        self.rows(states).enumerate().filter(move |(t, _)| live(t)).map(|(_, row)| row)
    }

    /// Takes what the outputs want of hidden state `state`.
    pub fn hidden_state(&mut self, state: usize, states: &[F32x16], outputs: &mut [Output<'_>]) {
        for output in outputs {
            let Output::Features { layers, pooling, out, .. } = output else { continue };
            let selection = selection(layers, self.pass.config.num_hidden_layers);
            let picks = selection.picks().iter().enumerate().filter(|(_, p)| p.state == state);
            for (slot, pick) in picks {
                // Sums start with the lowest state, and of the same state with the first.
                let first = selection
                    .picks()
                    .iter()
                    .enumerate()
                    .all(|(i, p)| (p.state, i) >= (state, slot));
                self.take(&selection, slot, *pick, first, *pooling, states, out);
            }
        }
    }

    /// Adds one hidden state to one output; means and maxima are completed in [`Self::finish`].
    #[allow(clippy::too_many_arguments)]
    fn take(
        &mut self,
        selection: &Selection,
        slot: usize,
        pick: Pick,
        first: bool,
        pooling: Pooling,
        states: &[F32x16],
        out: &mut [f32],
    ) {
        let hidden = self.pass.config.hidden_size;
        let width = selection.width(hidden);
        let (at, set) = match selection.combine {
            Combine::Concat => (slot * hidden, true),
            _ => (0, first),
        };
        let kernels = self.pass.kernels;
        let add = |out: &mut [f32], x: &[f32]| kernels.accumulate(out, x, pick.weight, set);
        if is_combined_maximum(selection, pooling) {
            let padded = self.pass.sizes.hidden;
            let rows = self.combined.chunks_exact_mut(padded).zip(states.chunks_exact(padded));
            rows.for_each(|(out, x)| add(flat_mut(out), flat(x)));
            return;
        }
        let one = &mut out[at..][..hidden];
        match pooling {
            Pooling::None => {
                for (out, x) in out.chunks_exact_mut(width).zip(self.rows(states)) {
                    add(&mut out[at..][..hidden], x);
                }
            }
            Pooling::Cls | Pooling::Pooler => {
                self.rows(states).take(1).for_each(|x| add(one, x));
            }
            Pooling::Sep => {
                let last = self.live(states).last();
                last.into_iter().for_each(|x| add(one, x));
            }
            Pooling::Mean | Pooling::MeanSqrt => self.sum(states, one, pick.weight, set),
            Pooling::Max => maximum(self.live(states), one),
            Pooling::MeanMax => {
                self.sum(states, one, pick.weight, set);
                maximum(self.live(states), &mut out[width + at..][..hidden]);
            }
        }
    }

    /// `out = ` (`set`) or `+=` the sum over the unmasked tokens, in order.
    fn sum(&self, states: &[F32x16], out: &mut [f32], weight: f32, set: bool) {
        for (i, x) in self.live(states).enumerate() {
            self.pass.kernels.accumulate(out, x, weight, set && i == 0);
        }
    }

    /// What can be done only at the end: divisions, poolers, heads.
    pub fn finish(
        &mut self,
        states: &[F32x16],
        worker: &mut Worker<'_>,
        outputs: &mut [Output<'_>],
    ) {
        for output in outputs {
            match output {
                Output::Features { layers, pooling, normalize, out } => {
                    let selection = selection(layers, self.pass.config.num_hidden_layers);
                    self.finish_features(&selection, *pooling, worker, out);
                    if *normalize {
                        let vectors = if *pooling == Pooling::None { self.tokens } else { 1 };
                        out.chunks_exact_mut(out.len() / vectors).for_each(divide_by_length);
                    }
                }
                Output::Logits { head, out } => self.logits(*head, states, worker, out),
                Output::MaskedLm { positions, out } => {
                    self.masked_lm(positions, states, worker, out);
                }
                Output::Attention { .. } => {}
            }
        }
    }

    fn finish_features(
        &mut self,
        selection: &Selection,
        pooling: Pooling,
        worker: &mut Worker<'_>,
        out: &mut [f32],
    ) {
        let hidden = self.pass.config.hidden_size;
        if is_combined_maximum(selection, pooling) {
            let (sums, maxima) = out.split_at_mut(out.len() - hidden);
            if !sums.is_empty() {
                self.sum(self.combined, sums, 1.0, true);
            }
            maximum(self.live(self.combined), maxima);
        }
        if selection.combine == Combine::Mean {
            divide(out, selection.picks().len() as f32);
        }
        let live = self.mask.map_or(self.tokens, |m| m.iter().filter(|m| **m != 0).count()) as f32;
        match pooling {
            Pooling::Mean => divide(out, live),
            Pooling::MeanSqrt => divide(out, sqrt(live)),
            Pooling::MeanMax => {
                let half = out.len() / 2;
                divide(&mut out[..half], live);
            }
            Pooling::Pooler => {
                let padded = self.pass.sizes.hidden;
                for x in out.chunks_exact_mut(hidden) {
                    let row = flat_mut(&mut worker.context[..padded]);
                    row.fill(0.0);
                    row[..hidden].copy_from_slice(x);
                    self.pool(worker);
                    x.copy_from_slice(&flat(&worker.context[..padded])[..hidden]);
                }
            }
            _ => {}
        }
    }

    /// The pooler: `x = tanh(W x + b)` of the first row of the worker's context.
    fn pool(&self, worker: &mut Worker<'_>) {
        let width = self.pass.sizes.hidden;
        let pooler = self.pass.model.head(SectionKind::Pooler).expect("checked");
        let Worker { context, output, quantised, .. } = worker;
        let (x, y) = (&mut context[..width], &mut output[..width]);
        pooler.forward(self.pass.kernels, x, 1, quantised, y);
        self.pass.kernels.activate(y, Activation::Tanh);
        x.copy_from_slice(y);
    }

    fn logits(
        &self,
        head: SectionKind,
        states: &[F32x16],
        worker: &mut Worker<'_>,
        out: &mut [f32],
    ) {
        let width = self.pass.sizes.hidden;
        let matrix = self.pass.model.head(head).expect("checked");
        if on_pooler(head) {
            worker.context[..width].copy_from_slice(&states[..width]);
            self.pool(worker);
            let Worker { context, output, quantised, .. } = worker;
            self.head(matrix, &context[..width], quantised, output, out);
        } else {
            let count = out.len() / self.tokens;
            let rows = states.chunks(CHUNK * width).zip(out.chunks_mut(CHUNK * count));
            for (x, out) in rows {
                self.head(matrix, x, &mut worker.quantised, worker.output, out);
            }
        }
    }

    /// `out = x W^T + b`, with `out` `[rows][outputs]` and not padded: as many outputs at a time as
    /// `buffer` has room for.
    fn head(
        &self,
        matrix: Linear<'_>,
        x: &[F32x16],
        quantised: &mut Quantised<'_>,
        buffer: &mut [F32x16],
        out: &mut [f32],
    ) {
        let rows = x.len() / self.pass.sizes.hidden;
        let (count, most) = (out.len() / rows, buffer.len() / rows);
        for from in (0..matrix.width()).step_by(most) {
            let part = matrix.slice(from, matrix.width().min(from + most));
            let width = part.width();
            let buffer = &mut buffer[..rows * width];
            part.forward(self.pass.kernels, x, rows, quantised, buffer);
            for (y, out) in buffer.chunks_exact(width).zip(out.chunks_exact_mut(count)) {
                let out = &mut out[from * 16..];
                let n = out.len().min(width * 16);
                out[..n].copy_from_slice(&flat(y)[..n]);
            }
        }
    }

    /// `decoder(norm(activation(transform(x)))) + bias` at some positions.
    fn masked_lm(
        &self,
        positions: &[usize],
        states: &[F32x16],
        worker: &mut Worker<'_>,
        out: &mut [f32],
    ) {
        let Pass { kernels, config, sizes, .. } = *self.pass;
        let width = sizes.hidden;
        let head = self.pass.model.masked_lm().expect("checked");
        for (position, out) in positions.iter().zip(out.chunks_exact_mut(config.vocab_size)) {
            let (x, y) = (&states[position * width..][..width], &mut worker.output[..width]);
            head.transform.forward(kernels, x, 1, &mut worker.quantised, y);
            kernels.activate(y, config.hidden_act);
            kernels.add_norm(y, &[], head.norm, config.hidden_size, config.layer_norm_eps);
            for (id, (out, bias)) in out.iter_mut().zip(head.bias).enumerate() {
                *out = kernels.dot_row(y, head.decoder.row(id, width)) + bias;
            }
        }
    }
}

fn divide(x: &mut [f32], divisor: f32) {
    x.iter_mut().for_each(|x| *x /= divisor);
}

fn maximum<'r>(rows: impl Iterator<Item = &'r [f32]>, out: &mut [f32]) {
    out.fill(f32::MIN);
    for row in rows {
        for (out, x) in out.iter_mut().zip(row) {
            *out = if *x > *out { *x } else { *out };
        }
    }
}

/// Divides a vector by its Euclidean length, or by 1e-12 if that is larger.
pub(crate) fn divide_by_length(x: &mut [f32]) {
    let length = sqrt(x.iter().map(|x| x * x).sum());
    divide(x, if length > 1e-12 { length } else { 1e-12 });
}
