//! What the encoder tells about a forward pass while it runs. The encoder emits hidden states and
//! knows nothing of poolings or heads; the outputs listen and know nothing of layers or threads.

use crate::kernels::F32x16;
use crate::linear::LinearScratch;

/// Listens to a forward pass.
///
/// Hidden states are `[tokens][hidden]` in vectors of sixteen; the values past the hidden size are
/// zero. `sum` has the same shape, is not initialised, and keeps what the observer writes to it until
/// the pass ends.
pub(crate) trait Observer {
    /// Receives hidden state `index`: 0 is the embeddings' output, 1 that of the first layer.
    fn hidden_state(&mut self, index: usize, x: &[F32x16], sum: &mut [F32x16]);

    /// Where to write the attention probabilities of layer `layer`, counted from 0:
    /// `[tokens][heads][tokens]`, query, head, key. `None` if they are not wanted.
    fn attention_map(&mut self, layer: usize) -> Option<&mut [f32]>;

    /// Receives the last hidden state once more, with buffers to run heads in.
    fn finish(&mut self, x: &[F32x16], sum: &mut [F32x16], scratch: HeadScratch<'_>);
}

/// Buffers to run heads in.
pub(crate) struct HeadScratch<'s> {
    /// `[hidden]`: one token's state.
    pub(crate) row: &'s mut [F32x16],
    /// `[rows][hidden]`: outputs of a matrix, for as many rows as a chunk has.
    pub(crate) out: &'s mut [F32x16],
    pub(crate) linear: LinearScratch<'s>,
}
