//! The model file.

/// Activation function of the feed-forward network (`hidden_act`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Activation {
    /// `x * Phi(x)` with the error function ("gelu").
    Gelu = 0,
    /// The tanh approximation ("gelu_new", "gelu_pytorch_tanh").
    GeluTanh = 1,
    /// `max(x, 0)`.
    Relu = 2,
    /// `x * sigmoid(x)` ("silu", "swish").
    Silu = 3,
    /// `tanh(x)`.
    Tanh = 4,
}
