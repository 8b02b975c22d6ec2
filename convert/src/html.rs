//! The report as one self-contained web page.

use std::fmt::Write as _;

use crate::report::{ConversionReport, StateError, Summary, TensorRow, short, size, thousands};

/// Escapes a text for HTML.
fn escape(text: &str) -> String {
    let text = bertlet::Printable(text).to_string();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "\
:root{--ink:#1d2530;--soft:#667085;--line:#e3e7ee;--bar:#3d6fd8;--hot:#d6452b;--page:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e7eaf0;--soft:#98a2b3;--line:#313845;--bar:#7aa2ff;--hot:#ff7b5f;--page:#14181f}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:60rem;margin:2rem auto;padding:0 1.2rem}
h1{font-size:1.6rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .4rem}p{margin:.3rem 0 .8rem}
.soft{color:var(--soft)}.key{display:flex;flex-wrap:wrap;gap:.6rem 1.8rem;margin:1.2rem 0}
.key div{min-width:6rem}.key b{display:block;font-size:1.35rem;font-weight:600}
svg{display:block;width:100%;height:auto}text{fill:var(--ink);font:12px system-ui,sans-serif}text.soft{fill:var(--soft)}
.bar{fill:var(--bar)}.hot{fill:var(--hot)}.grid{stroke:var(--line);stroke-width:1}.spikes{stroke:var(--bar);stroke-width:1}
.spikes-hot{stroke:var(--hot);stroke-width:1.5}.median{stroke:var(--soft);stroke-dasharray:3 3}
table{border-collapse:collapse;width:100%;font-size:13px}td,th{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}tr.dropped td{color:var(--hot)}code{font-size:12px;overflow-wrap:anywhere}
details summary{cursor:pointer}";

/// The page.
pub fn page(report: &ConversionReport) -> String {
    let ConversionReport { file, summary, tensors } = report;
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{0}</title><style>{STYLE}</style></head><body>\n<h1>{0}</h1>\n",
        escape(&file.name)
    );
    heading(&mut out, report);
    errors_by_layer(&mut out, &summary.error.states);
    channels(&mut out, &summary.error.states);
    heads(&mut out, summary);
    provenance(&mut out, summary);
    all_tensors(&mut out, tensors);
    out.push_str("</body></html>\n");
    out
}

fn heading(out: &mut String, ConversionReport { file, summary, .. }: &ConversionReport) {
    let Summary { model, options, parameters, error, .. } = summary;
    let last = error.states.last();
    let _ = writeln!(
        out,
        "<p class=\"soft\">{} layers, hidden size {}, {} heads, vocabulary of {}, {} positions, {}; stored as {} by {}</p>",
        model.num_hidden_layers,
        model.hidden_size,
        model.num_attention_heads,
        thousands(model.vocab_size),
        model.max_position_embeddings,
        model.hidden_act,
        options.weights,
        escape(&summary.tool),
    );
    out.push_str("<div class=\"key\">");
    let mut figure = |value: String, what: &str| {
        let _ = write!(out, "<div><b>{value}</b>{what}</div>");
    };
    figure(size(file.bytes as u64), &format!("from {}", size(file.source_bytes)));
    figure(thousands(parameters.encoder), "parameters");
    figure(last.map_or(String::new(), |s| short(s.relative_rms)), "relative RMS, last state");
    figure(format!("{:.6}", error.pooled_cosine), "pooled cosine, mean");
    figure(format!("{:.6}", error.lowest_pooled_cosine), "pooled cosine, lowest");
    let _ = writeln!(
        out,
        "</div>\n<p class=\"soft\">Measured on {} held-out texts ({} tokens): the converted model in bertlet \
         against the checkpoint in f32.</p>",
        error.texts, error.tokens
    );
    for note in &summary.notes {
        let _ = writeln!(out, "<p>Note: {}</p>", escape(note));
    }
    if !options.kept_in_f16.is_empty() {
        let kept = escape(&options.kept_in_f16.join(", "));
        let _ = writeln!(out, "<p>Kept in f16: {kept}.</p>");
    }
}

/// The error of every hidden state: one horizontal bar each.
fn errors_by_layer(out: &mut String, states: &[StateError]) {
    const ROW: usize = 24;
    const LEFT: f64 = 110.0;
    const WIDTH: f64 = 560.0;
    let most = states.iter().map(|s| s.relative_rms).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let _ = writeln!(
        out,
        "<h2>Error layer by layer</h2><p class=\"soft\">Root mean square of the error, divided by that of the hidden state; \
         signal to noise ratio; mean cosine per token.</p><svg viewBox=\"0 0 900 {}\" role=\"img\">",
        states.len() * ROW + 4
    );
    for (i, state) in states.iter().enumerate() {
        let y = i * ROW;
        let width = WIDTH * state.relative_rms / most;
        let _ = writeln!(
            out,
            "<text x=\"0\" y=\"{}\">{}</text><rect class=\"bar\" x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"16\" rx=\"2\"/>\
             <text x=\"{:.1}\" y=\"{}\">{}</text><text class=\"soft\" x=\"{:.1}\" y=\"{}\">{:.1} dB · {:.6}</text>",
            y + 16,
            escape(&state.name),
            y + 3,
            LEFT + width + 8.0,
            y + 16,
            short(state.relative_rms),
            LEFT + width + 60.0,
            y + 16,
            state.sqnr_db,
            state.cosine,
        );
    }
    out.push_str("</svg>\n");
}

/// A channel is an outlier if its error exceeds the median by this factor.
const OUTLIER: f64 = 2.0;

/// The error of every channel: one chart per hidden state, one spike per channel.
fn channels(out: &mut String, states: &[StateError]) {
    const ROW: f64 = 84.0;
    const HEIGHT: f64 = 60.0;
    const LEFT: f64 = 110.0;
    const WIDTH: f64 = 690.0;
    let _ = writeln!(
        out,
        "<h2>Error channel by channel</h2><p class=\"soft\">Root mean square error of each channel, each hidden state at its own \
         scale. Dashed: the median. Red: more than {OUTLIER} times the median.</p>\
         <svg viewBox=\"0 0 900 {}\" role=\"img\">",
        ROW * states.len() as f64
    );
    for (i, state) in states.iter().enumerate() {
        let bottom = ROW * i as f64 + HEIGHT + 14.0;
        let scale = HEIGHT / state.worst_channel_rms.max(f64::MIN_POSITIVE);
        let step = WIDTH / state.channels.len() as f64;
        let x = |channel: usize| LEFT + step * (channel as f64 + 0.5);
        let (mut usual, mut hot) = (String::new(), String::new());
        let mut worst: Vec<usize> = Vec::new();
        for (channel, &rms) in state.channels.iter().enumerate() {
            let outlier = rms > OUTLIER * state.median_channel_rms;
            let path = if outlier { &mut hot } else { &mut usual };
            let _ = write!(path, "M{:.1} {bottom:.1}v-{:.1}", x(channel), rms * scale);
            if outlier {
                worst.push(channel);
            }
        }
        worst.sort_by(|a, b| state.channels[*b].total_cmp(&state.channels[*a]));
        let median = bottom - state.median_channel_rms * scale;
        let right = LEFT + WIDTH;
        let _ = writeln!(
            out,
            "<text x=\"0\" y=\"{:.1}\">{}</text><text class=\"soft\" x=\"0\" y=\"{:.1}\">{} outliers</text>\
             <path class=\"spikes\" d=\"{usual}\"/><path class=\"spikes-hot\" d=\"{hot}\"/>\
             <path class=\"grid\" d=\"M{LEFT} {bottom:.1}H{right}\"/>\
             <path class=\"median\" d=\"M{LEFT} {median:.1}H{right}\"/>",
            bottom - 30.0,
            escape(&state.name),
            bottom - 14.0,
            worst.len(),
        );
        // The label right of the chart names the worst channel.
        let first = worst.first().copied().unwrap_or(state.worst_channel);
        let times = state.channels[first] / state.median_channel_rms;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\">channel {first}</text><text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\">{times:.1} x median</text>",
            right + 10.0,
            bottom - 30.0,
            right + 10.0,
            bottom - 14.0,
        );
    }
    out.push_str("</svg>\n");
}

fn heads(out: &mut String, summary: &Summary) {
    let parameters = &summary.parameters;
    out.push_str("<h2>Parameters</h2><table>");
    let mut row = |name: &str, count: usize| {
        let count = thousands(count);
        let _ = write!(out, "<tr><td>{name}</td><td class=\"n\">{count}</td></tr>");
    };
    row("embeddings", parameters.embeddings);
    row("layers", parameters.layers);
    row("pooler", parameters.pooler);
    row("<b>encoder</b>", parameters.encoder);
    parameters.heads.iter().for_each(|(name, count)| row(name, *count));
    row("<b>all</b>", parameters.total);
    out.push_str("</table>\n");
    if !summary.error.outputs.is_empty() {
        out.push_str(
            "<h2>Error of the outputs</h2><table><tr><th></th><th class=\"n\">relative RMS</th></tr>",
        );
        for output in &summary.error.outputs {
            let (name, rms) = (escape(&output.name), short(output.relative_rms));
            let _ = write!(out, "<tr><td>{name}</td><td class=\"n\">{rms}</td></tr>");
        }
        out.push_str("</table>\n");
    }
}

fn provenance(out: &mut String, summary: &Summary) {
    out.push_str(
        "<h2>Files read</h2><table><tr><th>file</th><th class=\"n\">bytes</th><th>SHA-256</th></tr>",
    );
    for file in &summary.source_files {
        let _ = write!(
            out,
            "<tr><td>{}</td><td class=\"n\">{}</td><td><code>{}</code></td></tr>",
            escape(&file.name),
            thousands(file.bytes as usize),
            file.sha256
        );
    }
    out.push_str("</table>\n");
    if let Some(calibration) = &summary.options.calibration {
        let _ = writeln!(
            out,
            "<p>Calibrated on {}: {} inputs, {} tokens.</p>",
            escape(&calibration.text),
            calibration.sequences,
            thousands(calibration.tokens)
        );
    }
    if let Some(kept) = &summary.options.vocabulary {
        let _ = writeln!(
            out,
            "<p>{} of {} pieces of the vocabulary: those that {} needs, and all single characters. \
             The errors above are those of the whole vocabulary.</p>",
            thousands(kept.pieces),
            thousands(kept.of),
            escape(&kept.text),
        );
    }
}

fn all_tensors(out: &mut String, tensors: &[TensorRow]) {
    let dropped = tensors.iter().filter(|t| t.dropped.is_some()).count();
    let _ = write!(
        out,
        "<h2>Tensors</h2><details{}><summary>{} read, {} mapped, {dropped} dropped</summary><table>\
         <tr><th>name</th><th>type</th><th>shape</th><th>became</th></tr>",
        if dropped > 0 { " open" } else { "" },
        tensors.len(),
        tensors.len() - dropped
    );
    // Dropped tensors first: a reader looks for those.
    let (first, then): (Vec<_>, Vec<_>) = tensors.iter().partition(|t| t.dropped.is_some());
    for tensor in first.into_iter().chain(then) {
        let (class, became) = match (&tensor.dropped, &tensor.mapped) {
            (Some(why), _) => (" class=\"dropped\"", format!("dropped: {}", escape(why))),
            (None, mapped) => {
                let mapped = escape(mapped.as_deref().unwrap_or_default());
                ("", format!("<code>{mapped}</code>"))
            }
        };
        let shape: Vec<_> = tensor.shape.iter().map(usize::to_string).collect();
        let _ = write!(
            out,
            "<tr{class}><td><code>{}</code></td><td>{}</td><td>{}</td><td>{became}</td></tr>",
            escape(&tensor.name),
            escape(&tensor.dtype),
            shape.join(" × ")
        );
    }
    out.push_str("</table></details>\n");
}
