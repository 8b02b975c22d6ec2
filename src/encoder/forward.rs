//! The forward pass: the Transformer encoder ("Attention Is All You Need", 1706.03762, figure 1, left)
//! with the embeddings and the activation of BERT (1810.04805).

use super::Input;
use super::parallel::{Part, Threads};
use super::scratch::{Qkv, Scratch, Worker};
use crate::format::{Config, Layer, Model};
use crate::kernels::{BLOCK, F32x16, Kernels, Keys, Norm, Write};
use crate::observer::Observer;

/// What does not change during a forward pass.
pub(super) struct ForwardPass<'p> {
    pub(super) model: &'p Model<'p>,
    pub(super) config: &'p Config,
    pub(super) kernels: &'static Kernels,
    pub(super) threads: Threads<'p>,
    /// The tokens that may be attended to.
    pub(super) keys: Keys<'p>,
}

impl ForwardPass<'_> {
    /// Runs the embeddings and the first `layers` layers; leaves the last hidden state in `s.x`.
    pub(super) fn run(
        &self,
        input: &Input<'_>,
        layers: usize,
        s: &mut Scratch<'_>,
        observer: &mut impl Observer,
    ) {
        self.embed(input, s.x);
        observer.hidden_state(0, s.x, s.sum);
        for i in 0..layers {
            self.layer(&self.model.layer(i), s, observer.attention_map(i));
            observer.hidden_state(i + 1, s.x, s.sum);
        }
    }

    /// `x = norm(word + token type + position)`, in that order.
    fn embed(&self, input: &Input<'_>, x: &mut [F32x16]) {
        let width = self.threads.sizes.hidden;
        let tables = self.model.embeddings();
        for (b, rows) in x.chunks_mut(BLOCK * width).enumerate() {
            let tokens = || b * BLOCK..;
            // All words first: their rows lie far apart in memory, so that the cache misses overlap.
            for (t, row) in tokens().zip(rows.chunks_exact_mut(width)) {
                let word = tables.word.row(input.input_ids[t] as usize, width);
                self.kernels.add_row(row, word, Write::Set);
            }
            for (t, row) in tokens().zip(rows.chunks_exact_mut(width)) {
                let token_type = input.token_type_ids.map_or(0, |types| types[t].into());
                self.kernels.add_row(row, tables.token_type.row(token_type, width), Write::Add);
                self.kernels.add_row(row, tables.position.row(t, width), Write::Add);
            }
            self.add_norm(rows, &[], tables.norm);
        }
    }

    /// One layer. Attention needs the keys and values of all tokens, hence two parallel sections.
    /// The feed-forward network runs over the chunks anew, so that the cache has to hold its weights
    /// only.
    fn layer(&self, w: &Layer<'_>, s: &mut Scratch<'_>, map: Option<&mut [f32]>) {
        let sizes = self.threads.sizes;
        let part = Part { x: s.x, first_block: 0, data: s.qkv.reborrow() };
        self.threads.run(part, s.workers, &|part, worker| {
            part.each_chunk(sizes, |chunk| self.project(w, chunk, worker));
        });
        let part = Part { x: s.x, first_block: 0, data: map };
        self.threads.run(part, s.workers, &|Part { x, first_block, data }, worker| {
            let part = Part { x: &mut *x, first_block, data };
            part.each_chunk(sizes, |chunk| self.attention(w, &s.qkv, chunk, worker));
            let part = Part { x, first_block, data: () };
            part.each_chunk(sizes, |chunk| self.feed_forward(w, chunk, worker));
        });
    }

    /// Queries, keys and values: `q, k, v = W_qkv x + b`.
    fn project(&self, w: &Layer<'_>, mut chunk: Part<'_, Qkv<'_>>, worker: &mut Worker<'_>) {
        let sizes = self.threads.sizes;
        let rows = chunk.rows(sizes);
        let qkv = &mut worker.wide[..rows * 3 * sizes.heads];
        w.query_key_value.forward(self.kernels, chunk.x, rows, &mut worker.linear, qkv);
        chunk.data.pack(self.kernels, sizes.shape, qkv, worker.linear.quantized);
    }

    /// Multi-head attention, add & norm: `x = norm(x + W_o attend(q, k, v))`.
    fn attention(
        &self,
        w: &Layer<'_>,
        qkv: &Qkv<'_>,
        chunk: Part<'_, Option<&mut [f32]>>,
        worker: &mut Worker<'_>,
    ) {
        let (rows, first) = (chunk.rows(self.threads.sizes), chunk.first_block * BLOCK);
        qkv.attend(self, first..first + rows, worker, chunk.data);
        let context = &worker.context[..rows * self.threads.sizes.heads];
        let y = &mut worker.output[..chunk.x.len()];
        w.attention_output.forward(self.kernels, context, rows, &mut worker.linear, y);
        self.add_norm(chunk.x, y, w.attention_norm);
    }

    /// Feed-forward network, add & norm: `x = norm(x + W_2 activation(W_1 x))`.
    fn feed_forward(&self, w: &Layer<'_>, chunk: Part<'_, ()>, worker: &mut Worker<'_>) {
        let rows = chunk.rows(self.threads.sizes);
        let inner = &mut worker.wide[..rows * self.threads.sizes.intermediate];
        let y = &mut worker.output[..chunk.x.len()];
        let (kernels, activation) = (self.kernels, self.config.hidden_act);
        w.intermediate.forward(kernels, chunk.x, rows, &mut worker.linear, inner);
        w.output.forward_activated(kernels, activation, inner, rows, &mut worker.linear, y);
        self.add_norm(chunk.x, y, w.output_norm);
    }

    /// `x = norm(x + y)` per row; `norm(x)` if `y` is empty.
    fn add_norm(&self, x: &mut [F32x16], y: &[F32x16], norm: Norm<'_>) {
        let Config { hidden_size, layer_norm_eps, .. } = *self.config;
        self.kernels.add_norm(x, y, norm, hidden_size, layer_norm_eps);
    }
}
