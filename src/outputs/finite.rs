//! Values that are not finite: they end a pass with an error, and never become an answer.
//!
//! One value that is not finite spreads: the norm of its row makes the whole row NaN, and each layer adds the
//! row to its own output. So a look at the last state finds what went wrong in any layer before it, and the
//! layers run at full speed. Only after that is the pass repeated, to name the first layer at fault.

use super::{Output, Pass};
use crate::encoder::{Encoder, Input};
use crate::error::{NotFinite, RunError};
use crate::kernels::{F32x16, flat};
use crate::observer::{HeadScratch, Observer};

/// Whether no value is NaN or infinite.
pub(super) fn all_finite(values: &[f32]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    // By lanes and without an early exit, so that the compiler can use vectors.
    let mut found = [0u32; 16];
    let mut add = |values: &[f32]| {
        for (found, x) in found.iter_mut().zip(values) {
            *found |= u32::from(x.to_bits() & EXPONENT == EXPONENT);
        }
    };
    let (blocks, rest) = values.as_chunks::<16>();
    blocks.iter().for_each(|block| add(block));
    add(rest);
    found == [0; 16]
}

/// Whether the last state that was computed is finite: sixteen values of each token, of which one would do if
/// it came from an earlier layer, and all of the first token, which the pooler would hide.
pub(super) fn state_is_finite(pass: &Pass<'_>, x: &[F32x16]) -> bool {
    let width = pass.width();
    let first = x.get(..width).unwrap_or(x);
    all_finite(flat(first)) && x.chunks_exact(width).all(|row| all_finite(&row[0].0))
}

/// The first of `outputs` that is not finite.
pub(super) fn at_fault(outputs: &[Output<'_>]) -> Option<NotFinite> {
    outputs.iter().find_map(|output| {
        let (values, place) = match output {
            Output::Features { out, .. } => (&**out, NotFinite::Features),
            Output::Logits { head, out } => (&**out, NotFinite::Head(head.name())),
            Output::MaskedLm { out, .. } => (&**out, NotFinite::Head(super::head::MASKED_LM)),
            Output::Attention { layer, out } => (&**out, NotFinite::Attention(*layer)),
        };
        (!all_finite(values)).then_some(place)
    })
}

/// Runs the first `layers` layers again, to name the first state that is not finite.
#[cold]
pub(crate) fn locate(encoder: &mut Encoder<'_, '_>, input: &Input<'_>, layers: usize) -> RunError {
    struct Finder(Option<usize>);
    impl Observer for Finder {
        fn hidden_state(&mut self, index: usize, x: &[F32x16], _: &mut [F32x16]) {
            if self.0.is_none() && !all_finite(flat(x)) {
                self.0 = Some(index);
            }
        }
        fn attention_map(&mut self, _: usize) -> Option<&mut [f32]> {
            None
        }
        fn finish(&mut self, _: &[F32x16], _: &mut [F32x16], _: HeadScratch<'_>) {}
    }
    let mut finder = Finder(None);
    encoder.forward(input, layers, &mut finder);
    RunError::NotFinite(NotFinite::HiddenState(finder.0.unwrap_or(layers)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_and_every_kind_is_found() {
        for count in 0..70 {
            let mut values = [0.5f32; 70];
            let values = &mut values[..count];
            assert!(all_finite(values));
            for at in 0..count {
                for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    values[at] = bad;
                    assert!(!all_finite(values), "{bad} at {at} of {count}");
                }
                for good in [f32::MAX, f32::MIN, f32::from_bits(1), -0.0] {
                    values[at] = good;
                    assert!(all_finite(values), "{good} at {at} of {count}");
                }
            }
        }
    }
}
