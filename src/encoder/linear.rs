//! `y = W x + b`, whatever the weights are stored as.

use super::scratch::Quantised;
use crate::format::Linear;
use crate::kernels::{Activation, F32x16, I8x64, Int8Rows, Kernels, Prologue, Quantize, Rotation};

impl Linear<'_> {
    /// Vectors of sixteen that an output row fills.
    pub(crate) fn width(&self) -> usize {
        match self {
            Self::Int8(w, _) => w.bias.len(),
            Self::F16(w) => w.bias.len(),
            Self::F32(w) => w.bias.len(),
        }
    }

    /// Vectors `from..to` of the outputs alone.
    pub(super) fn slice(&self, from: usize, to: usize) -> Self {
        match self {
            Self::Int8(w, rotation) => Self::Int8(w.slice(from, to), *rotation),
            Self::F16(w) => Self::F16(w.slice(from, to)),
            Self::F32(w) => Self::F32(w.slice(from, to)),
        }
    }

    /// `out = x W^T + b`: `x` is `[rows]` of `x.len() / rows` vectors, `out` `[rows][width]`.
    pub(super) fn forward(
        &self,
        kernels: &Kernels,
        x: &[F32x16],
        rows: usize,
        quantised: &mut Quantised<'_>,
        out: &mut [F32x16],
    ) {
        let (x_width, width) = (x.len() / rows, self.width());
        match *self {
            Self::Int8(w, rotation) => {
                let x = quantised.fill(kernels, x, rows, Prologue::None, rotation, w.panels);
                kernels.linear_int8(x, w, out, width);
            }
            Self::F16(w) => kernels.linear_f16(x, x_width, w, out, width),
            Self::F32(w) => kernels.linear_f32(x, x_width, w, out, width),
        }
    }

    /// [`Linear::forward`] of `activation(x)`; leaves anything in `x`.
    pub(super) fn forward_activated(
        &self,
        kernels: &Kernels,
        activation: Activation,
        x: &mut [F32x16],
        rows: usize,
        quantised: &mut Quantised<'_>,
        out: &mut [F32x16],
    ) {
        match *self {
            Self::Int8(w, rotation) if activation == Activation::Gelu => {
                let x = quantised.fill(kernels, x, rows, Prologue::Gelu, rotation, w.panels);
                kernels.linear_int8(x, w, out, self.width());
            }
            _ => {
                kernels.activate(x, activation);
                self.forward(kernels, x, rows, quantised, out);
            }
        }
    }
}

impl Quantised<'_> {
    fn fill(
        &mut self,
        kernels: &Kernels,
        x: &[F32x16],
        rows: usize,
        prologue: Prologue,
        rotation: Rotation,
        prefetch: &[I8x64],
    ) -> Int8Rows<'_> {
        let (values, scale) = (&mut self.values[..x.len()], &mut self.scale[..rows]);
        let buffer = &mut *self.rows;
        kernels.quantize(Quantize { x, prologue, rotation, buffer, values, scale, prefetch });
        Int8Rows { values, scale, width: x.len() / rows }
    }
}
