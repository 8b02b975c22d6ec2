//! Models in mixed precision: int8, with the linear layers that matter most in f16.

use std::collections::BTreeSet;

use super::{fold_heads, half_linear};
use crate::bert::Bert;
use crate::reference::LinearKind;
use crate::stored::{StoredBert, StoredLinear};

/// Chooses linear layers to keep in f16, as few as needed for `measure` (a mean pooled cosine) to reach `wanted`.
///
/// Layers are added in the order of how much each alone improves the cosine. The inner `Err` is the cosine with
/// all layers in f16, if that is below `wanted`.
pub fn keep_for_cosine<E>(
    bert: &Bert,
    quantized: &StoredBert,
    wanted: f64,
    measure: &mut dyn FnMut(&StoredBert) -> Result<f64, E>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Result<BTreeSet<(usize, LinearKind)>, f64>, E> {
    let mut cosine = |keep: &[(usize, LinearKind)]| {
        let mut model = quantized.clone();
        keep.iter().for_each(|&(layer, kind)| keep_float(bert, &mut model, layer, kind));
        measure(&model)
    };
    if cosine(&[])? >= wanted {
        return Ok(Ok(BTreeSet::new()));
    }
    let all: Vec<_> =
        (0..bert.layers.len()).flat_map(|l| LinearKind::ALL.map(|kind| (l, kind))).collect();
    let best = cosine(&all)?;
    if best < wanted {
        return Ok(Err(best));
    }
    let mut ranked = Vec::new();
    for (done, &candidate) in all.iter().enumerate() {
        progress(done, all.len());
        ranked.push((cosine(&[candidate])?, candidate));
    }
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let ranked: Vec<_> = ranked.into_iter().map(|(_, candidate)| candidate).collect();
    // `low` layers are too few, `high` are enough.
    let (mut low, mut high) = (0, ranked.len());
    while high - low > 1 {
        let middle = low.midpoint(high);
        if cosine(&ranked[..middle])? >= wanted { high = middle } else { low = middle }
    }
    progress(all.len(), all.len());
    Ok(Ok(ranked.into_iter().take(high).collect()))
}

/// Replaces a linear layer by its f16 version.
pub fn keep_float(bert: &Bert, model: &mut StoredBert, index: usize, kind: LinearKind) {
    let source = &bert.layers[index];
    let layer = &mut model.layers[index];
    let (place, linear) = match kind {
        LinearKind::Qkv => (&mut layer.qkv, &fold_heads(bert, index).qkv),
        LinearKind::AttentionOutput => {
            (&mut layer.attention_output, &fold_heads(bert, index).attention_output)
        }
        LinearKind::Intermediate => (&mut layer.intermediate, &source.intermediate),
        LinearKind::Output => (&mut layer.output, &source.output),
    };
    *place = StoredLinear::Float(half_linear(linear));
}
