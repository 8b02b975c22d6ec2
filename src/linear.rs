//! `y = W x + b`, in whichever encoding the file has the weights.

use crate::format::Linear;
use crate::kernels::{
    Activation, F32x16, I8x16, I8x64, Int8Rows, Kernels, Prologue, Quantize, Rotation,
};

/// Buffers for quantising the input of a linear layer.
pub(crate) struct LinearScratch<'s> {
    /// `[rows][inputs]`, in int8.
    pub(crate) quantized: &'s mut [I8x16],
    /// `[rows]`: the scale of each row.
    pub(crate) scale: &'s mut [f32],
    /// `[QUANTIZE_ROWS][inputs]`: rows before they are rounded.
    pub(crate) rotated: &'s mut [F32x16],
}

impl Linear<'_> {
    /// Outputs, in vectors of sixteen.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Int8(w, _) => w.bias.len(),
            Self::F16(w) => w.bias.len(),
            Self::F32(w) => w.bias.len(),
        }
    }

    /// The layer with the outputs of vectors `from..to` only.
    pub(crate) fn slice(&self, from: usize, to: usize) -> Self {
        match self {
            Self::Int8(w, rotation) => Self::Int8(w.slice(from, to), *rotation),
            Self::F16(w) => Self::F16(w.slice(from, to)),
            Self::F32(w) => Self::F32(w.slice(from, to)),
        }
    }

    /// `out = x W^T + b`. `x` is `[rows][inputs]`, `out` is `[rows][width]`, in vectors of sixteen.
    pub(crate) fn forward(
        &self,
        kernels: &Kernels,
        x: &[F32x16],
        rows: usize,
        scratch: &mut LinearScratch<'_>,
        out: &mut [F32x16],
    ) {
        let (x_width, width) = (x.len() / rows, self.width());
        match *self {
            Self::Int8(w, rotation) => {
                let prologue = Prologue::None;
                let (x, buffer) = scratch.quantize(kernels, x, rows, prologue, rotation, w.panels);
                kernels.linear_int8(x, w, buffer, out, width);
            }
            Self::F16(w) => kernels.linear_f16(x, x_width, w, out, width),
            Self::F32(w) => kernels.linear_f32(x, x_width, w, out, width),
        }
    }

    /// [`Linear::forward`] of `activation(x)`. Overwrites `x`.
    pub(crate) fn forward_activated(
        &self,
        kernels: &Kernels,
        activation: Activation,
        x: &mut [F32x16],
        rows: usize,
        scratch: &mut LinearScratch<'_>,
        out: &mut [F32x16],
    ) {
        match *self {
            Self::Int8(w, rotation) if activation == Activation::Gelu => {
                let prologue = Prologue::Gelu;
                let (x, buffer) = scratch.quantize(kernels, x, rows, prologue, rotation, w.panels);
                kernels.linear_int8(x, w, buffer, out, self.width());
            }
            _ => {
                kernels.activate(x, activation);
                self.forward(kernels, x, rows, scratch, out);
            }
        }
    }
}

impl LinearScratch<'_> {
    /// Rotates and quantises the rows of `x`, or of its GELU, and prefetches `weights` meanwhile. Returns the
    /// rows, and working memory for their product.
    fn quantize(
        &mut self,
        kernels: &Kernels,
        x: &[F32x16],
        rows: usize,
        prologue: Prologue,
        rotation: Rotation,
        prefetch: &[I8x64],
    ) -> (Int8Rows<'_>, &mut [F32x16]) {
        let (values, scale) = (&mut self.quantized[..x.len()], &mut self.scale[..rows]);
        let width = x.len() / rows;
        let buffer = &mut *self.rotated;
        kernels.quantize(Quantize { x, prologue, rotation, buffer, values, scale, prefetch });
        (Int8Rows { values, scale, width }, self.rotated)
    }
}
