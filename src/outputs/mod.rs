//! What is made of hidden states: features, logits, attention maps. Listens to a forward pass as its
//! [`Observer`].
//!
//! A new pooling goes to `pooling.rs`, a new head to `head.rs`; the encoder does not change.

mod finite;
mod head;
mod layers;
mod pooling;

pub(crate) use finite::locate;
pub use head::Head;
pub(crate) use head::{require_masked_lm, sections_on_pooler};
pub use layers::{Combine, HiddenState, Layers, SelectionError};
pub(crate) use pooling::l2_normalize;
pub use pooling::{Pooling, features_len};

use crate::error::{NotFinite, RunError, TooSmall};
use crate::format::{Config, Model, round16};
use crate::kernels::{F32x16, Kernels, flat};
use crate::observer::{HeadScratch, Observer};
use pooling::{Features, is_combined_maximum};

/// What is wanted of a forward pass. One pass can fill any number of outputs.
// A boxed selection would need an allocator.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Output<'o> {
    /// Hidden states.
    Features {
        /// Which ones, and how they are combined.
        layers: Layers,
        /// How the vectors of the tokens become one.
        pooling: Pooling,
        /// Whether each vector is divided by its Euclidean length.
        normalize: bool,
        /// [`features_len`] values: `[features]`, or `[tokens][features]` if not pooled.
        out: &'o mut [f32],
    },
    /// The logits of a head.
    Logits {
        /// Which head.
        head: Head,
        /// [`Head::logits_len`] values.
        out: &'o mut [f32],
    },
    /// The logits of all words at some positions.
    MaskedLm {
        /// Positions in the input.
        positions: &'o [usize],
        /// `[positions][vocabulary]`.
        out: &'o mut [f32],
    },
    /// Attention probabilities.
    Attention {
        /// Layer, counted from 0.
        layer: usize,
        /// `[tokens][heads][tokens]`: query, head, key.
        out: &'o mut [f32],
    },
}

/// Checks that `outputs` fit the model and an input of `tokens` tokens. Returns how many layers have
/// to run.
pub(crate) fn check(
    model: &Model<'_>,
    tokens: usize,
    outputs: &[Output<'_>],
) -> Result<usize, RunError> {
    let config = model.config();
    let all_layers = config.num_hidden_layers;
    let mut combined_maxima = 0;
    let mut needed = 0;
    for output in outputs {
        let (need, have, layers) = match output {
            Output::Features { layers, pooling, out, .. } => {
                let need = features_len(config, tokens, layers, *pooling)?;
                if *pooling == Pooling::Pooler {
                    head::require_pooler(model)?;
                }
                combined_maxima += usize::from(is_combined_maximum(layers, *pooling));
                let highest = layers.states(all_layers).map(|state| state.index).max();
                (need, out.len(), highest.unwrap_or(0))
            }
            Output::Logits { head, out } => (head.require(model, tokens)?, out.len(), all_layers),
            Output::MaskedLm { positions, out } => {
                require_masked_lm(model)?;
                if let Some(position) = positions.iter().find(|p| **p >= tokens) {
                    return Err(RunError::NoSuchPosition(*position));
                }
                (positions.len().saturating_mul(config.vocab_size), out.len(), all_layers)
            }
            Output::Attention { layer, out } => {
                if *layer >= all_layers {
                    let layer = i16::try_from(*layer).unwrap_or(i16::MAX);
                    return Err(RunError::NoSuchLayer { layer, layers: all_layers });
                }
                let need = tokens.saturating_mul(tokens).saturating_mul(config.num_attention_heads);
                (need, out.len(), layer + 1)
            }
        };
        if have < need {
            return Err(TooSmall { what: "an output", need, have }.into());
        }
        if have > need {
            return Err(RunError::OutputTooLong { need, have });
        }
        needed = needed.max(layers);
    }
    if combined_maxima > 1 {
        return Err(RunError::TwoCombinedMaxima);
    }
    Ok(needed)
}

/// What the outputs of a pass share.
struct Pass<'p> {
    model: &'p Model<'p>,
    config: &'p Config,
    kernels: &'static Kernels,
    tokens: usize,
    attention_mask: Option<&'p [u8]>,
}

impl Pass<'_> {
    /// Vectors of sixteen that the state of a token fills.
    fn width(&self) -> usize {
        round16(self.config.hidden_size) / 16
    }

    /// The state of each token, without padding.
    fn rows<'x>(&self, x: &'x [F32x16]) -> impl Iterator<Item = &'x [f32]> + use<'x> {
        let hidden = self.config.hidden_size;
        x.chunks_exact(self.width()).map(move |row| &flat(row)[..hidden])
    }

    /// The state of each unmasked token.
    fn unmasked_rows<'x>(&self, x: &'x [F32x16]) -> impl Iterator<Item = &'x [f32]> {
        let mask = self.attention_mask;
        let unmasked = move |t: &usize| mask.is_none_or(|mask| mask[*t] != 0);
        self.rows(x).enumerate().filter(move |(t, _)| unmasked(t)).map(|(_, row)| row)
    }

    fn unmasked_tokens(&self) -> usize {
        self.attention_mask.map_or(self.tokens, |m| m.iter().filter(|m| **m != 0).count())
    }
}

/// Fills outputs during a forward pass.
pub(crate) struct Listener<'l, 'o> {
    pass: Pass<'l>,
    outputs: &'l mut [Output<'o>],
    fault: Option<Fault>,
}

/// Something that is not finite.
pub(crate) enum Fault {
    /// The last state, because of this or of an earlier layer.
    State,
    /// What was made of finite states.
    Output(NotFinite),
}

impl<'l, 'o> Listener<'l, 'o> {
    /// For outputs that [`check`] accepts.
    pub(crate) fn new(
        model: &'l Model<'l>,
        kernels: &'static Kernels,
        tokens: usize,
        attention_mask: Option<&'l [u8]>,
        outputs: &'l mut [Output<'o>],
    ) -> Self {
        let pass = Pass { model, config: model.config(), kernels, tokens, attention_mask };
        Self { pass, outputs, fault: None }
    }

    /// What was not finite, after the pass.
    pub(crate) fn fault(self) -> Option<Fault> {
        self.fault
    }
}

impl Observer for Listener<'_, '_> {
    fn hidden_state(&mut self, index: usize, x: &[F32x16], sum: &mut [F32x16]) {
        let pass = &self.pass;
        for output in &mut *self.outputs {
            if let Output::Features { layers, pooling, normalize, out } = output {
                let (pooling, normalize) = (*pooling, *normalize);
                Features { pass, layers, pooling, normalize }.add(index, x, sum, out);
            }
        }
    }

    fn attention_map(&mut self, layer: usize) -> Option<&mut [f32]> {
        self.outputs.iter_mut().find_map(|output| match output {
            Output::Attention { layer: wanted, out } if *wanted == layer => Some(&mut **out),
            _ => None,
        })
    }

    fn finish(&mut self, x: &[F32x16], sum: &mut [F32x16], mut scratch: HeadScratch<'_>) {
        if !finite::state_is_finite(&self.pass, x) {
            self.fault = Some(Fault::State);
            return;
        }
        let (pass, scratch) = (&self.pass, &mut scratch);
        for output in &mut *self.outputs {
            match output {
                Output::Features { layers, pooling, normalize, out } => {
                    let (pooling, normalize) = (*pooling, *normalize);
                    Features { pass, layers, pooling, normalize }.finish(sum, scratch, out);
                }
                Output::Logits { head, out } => head::logits(pass, *head, x, scratch, out),
                Output::MaskedLm { positions, out } => {
                    head::masked_lm(pass, positions, x, scratch, out);
                }
                Output::Attention { .. } => {}
            }
        }
        copy_attention_maps(self.outputs);
        self.fault = finite::at_fault(self.outputs).map(Fault::Output);
    }
}

/// The encoder writes the map of a layer to the first output that wants it; the others get a copy.
fn copy_attention_maps(outputs: &mut [Output<'_>]) {
    for i in 1..outputs.len() {
        let (before, rest) = outputs.split_at_mut(i);
        let Output::Attention { layer, out } = &mut rest[0] else { continue };
        let map = before.iter().find_map(|output| match output {
            Output::Attention { layer: other, out } if other == layer => Some(&**out),
            _ => None,
        });
        if let Some(map) = map {
            out.copy_from_slice(map);
        }
    }
}
