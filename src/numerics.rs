//! The arithmetic, to the bit: what a forward pass computes and in which order, so that another
//! implementation can give the same bits. `tests/second_implementation.rs` is one; it is written from
//! this page and the format's. [`crate::format`] specifies how values are stored in a file, and defines
//! the capital letters (`H` hidden size, `A` heads, `D = H / A`, `D16`, `I`).
//!
//! # Notation
//! * Values are f32 (IEEE 754 binary32). Rounding is to nearest, ties to even. Subnormals are kept.
//!   Each `+`, `-`, `*`, `/` and `sqrt` on this page rounds once, from left to right, parentheses
//!   first. `fma(a, b, c)` is `a * b + c` rounded once. f16 values are widened, which is exact.
//!   Constants are the f32 nearest to the decimal number.
//! * `S(x[0..n])` is the sum by lanes: sixteen partial sums `p[l] = 0 + x[l] + x[l + 16] + ...`, then
//!   `p[l] += p[l + 8]` for `l < 8`, `p[l] += p[l + 4]` for `l < 4`, then 2, then 1; the sum is `p[0]`.
//!   `Sfma(x, y)` is the same with `p[l] = fma(x[i], y[i], p[l])`.
//! * `poly(x; c0, c1, ..., cn)` is Horner's rule: `y = cn`, then `y = fma(y, x, ck)` for `k` from
//!   `n - 1` down to 0.
//! * `round(x)` is the nearest whole number, ties to even.
//! * Sums of integers are exact.
//!
//! # Embeddings
//! For token `t`: `x = (word[id] + type[token type]) + position[t]`, then the norm below. A value `w` of
//! an int8 table stands for `f32(w) * f32(scale)`.
//!
//! # Norm
//! For a row `x` of `H` values:
//! ```text
//! mean = S(x) / H
//! d[i] = x[i] - mean
//! r    = 1 / sqrt(Sfma(d, d) / H + eps)
//! y[i] = fma(d[i] * r, gamma[i], beta[i])
//! ```
//!
//! # Matrix
//! **f32 and f16** weights: `y[n] = bias[n]`, then `y[n] = fma(x[k], w[n][k], y[n])` for `k`
//! ascending from 0 to `K - 1`.
//!
//! **int8** weights. A row `x` is *rotated*: for distance `m = 1, 2, 4, ...` below the block `B`, for
//! each block, each pair of members `a` (number `j` with bit `m` clear) and `b` (number `j + m`)
//! becomes `a + b` and `a - b`. Then it is *quantised*:
//! ```text
//! largest = max |x[k]|
//! m       = max(largest, 1e-30)
//! scale   = m * (1 / 127)            the factor rounded to f32
//! inverse = 127 / m
//! q[k]    = round(x[k] * inverse)
//! y[n]    = fma(f32(sum over k of q[k] w[n][k]) * scale, w_scale[n], bias[n])
//! ```
//! The stored sum of an output's weights is not used here. An implementation that multiplies `q + 128`
//! needs it for zero-point compensation.
//!
//! # Layer
//! ```text
//! qkv = QueryKeyValue(x)                       D16 values per head, those past D are zero
//! x   = norm(x + AttentionOutput(attention(qkv)))
//! x   = norm(x + Output(activation(Intermediate(x))))
//! ```
//! Where `Output` is int8 and the activation is gelu, it is `gelu_int8` below.
//!
//! # Attention
//! For one head: `i` is a query, `j` a key, `d` runs over `D`. A masked key is left out: its `e` below
//! is 0. The states of masked tokens are computed like all others.
//! `temperature = 1.442695 / sqrt(f32(D))`.
//!
//! **In f32**, for each query:
//! ```text
//! s[j]   = fma(q[d], k[j][d], s[j])            from 0, d ascending
//! m      = max over unmasked j of s[j]
//! e[j]   = exp2((s[j] - m) * temperature)
//! out[d] = fma(e[j], v[j][d], out[d])          from 0, j ascending
//! out[d] = out[d] * (1 / S(e))
//! ```
//!
//! **In integers.** The query, the key and the value of each token are quantised like the input row of
//! an int8 matrix, without the rotation: `q8`, `k8`, `v8` with scales `qs`, `ks[j]`, `vs[j]`. For each query:
//! ```text
//! s[j]    = f32(sum over d of q8[d] k8[j][d]) * ks[j]
//! m       = max over unmasked j of s[j]
//! c       = min(qs * (4096 * temperature), 2^36 / |m|)
//! w[j]    = round(cut(fma(s[j], c, fma(-m, c, 65535))))          cut to 0 and 65535
//! e[j]    = exp2_15(w[j])
//! V       = max over unmasked j of vs[j]
//! f[j]    = round(min(vs[j] * (32767 / V), 32767))               0 if V = 0
//! p[j]    = (e[j] f[j] + 2^14) / 2^15                            rounded down
//! out[d]  = 0 + f32(sum of p[j] v8[j][d] over keys 0..512) + f32(that over keys 512..1024) + ...
//! out[d]  = out[d] * (V * (32768 / 32767) / f32(sum of e))       the constant rounded to f32
//! ```
//! `w`, `e`, `f`, `p` and the sums of products are integers. A sum over 512 keys fits an i32:
//! 32,767 * 127 * 512 is below 2^31. The bound of `c` has no effect on a trained model: it keeps the `w`
//! of the largest score right if `m c` has no bits left for a fraction.
//!
//! The probabilities of [`crate::Output::Attention`] are `e[j] / S(e)` in f32, `f32(e[j]) / f32(sum of e)`
//! in integers.
//!
//! # Functions
//! ```text
//! exp2(x):    x = max(x, -125); n = round(x); poly(x - n; 1, 0.6931466, 0.24022166,
//!             0.055510473, 0.009674952, 0.0013202982) * 2^n
//! exp2_15(w): integers: r = w mod 4096; y = 5514; y = floor(y * r / 4096) + c for c = 10755, 16380;
//!             floor((y * 2^floor(w / 4096) + 2^14) / 2^15). About 16353 * 2^(w / 4096 - 15)
//! exp(x):     exp2(min(x, 87) * 1.442695)
//! tanh(x):    x = min(max(x, -10), 10); 1 - 2 / (exp2(x * 2.88539) + 1)
//! gelu(x):    u = min(max(x, -5), 5); v = fma(u * u, 0.08, -1);
//!             x * fma(u, poly(v; 0.14136378, -0.07029664, 0.05152142, -0.040433243, 0.03142621,
//!             -0.023334937, 0.016497625, -0.010978166, 0.0061662514, -0.0029090233,
//!             0.001999413, -0.0015175419, 0.00049480575), 0.5)
//! gelu_int8:  a = min(|x|, 3.83); fma(a, poly(a; -0.49851644, 0.38131678, 0.058666807,
//!             -0.15237692, 0.06251969, -0.010898919, 0.0007184116), max(x, 0))
//! gelu_new:   h = x * 0.5; fma(h, tanh(0.7978846 * fma(x * x * x, 0.044715, x)), h)
//! silu(x):    x / (1 + exp(0 - x))
//! relu(x):    x if x > 0, else +0
//! ```
//! The numbers 1.442695 and 2.88539 stand for log2(e) and twice it, in f32: 0x3fb8aa3b, 0x4038aa3b.
//!
//! # Outputs
//! **Features.** A state times its weight (1 unless the combination is weighted) is `x * weight`.
//! States are added in ascending order of their number, equal ones in the order given; the first
//! sets the sum, the others are added to it.
//! * no pooling: per token. `cls`, `sep`, `pooler`: one token only.
//! * `mean`, `mean-sqrt`: one running sum over all states, and within a state over the unmasked tokens in
//!   order. `concat` has one sum per state.
//! * `max`: of equal values the first. Of combined states (`sum`, `mean`, `weighted`) the combination
//!   is computed for each token first; the sums of their `mean-max` then run over these combined tokens.
//! * Then follow, in this order: for `mean` over layers, the division by the number of states; the
//!   division by the number of unmasked tokens (`mean`, first half of `mean-max`) or its square root
//!   (`mean-sqrt`); the pooler (on each concatenated state separately).
//! * L2: each vector is divided by `max(sqrt(sum of x[i] * x[i]), 1e-12)`, the sum from 0 in
//!   ascending order.
//!
//! **Pooler**: `tanh(Pooler(x))` of the first token. **Heads**: the head's matrix, applied to the last
//! state of each token (token classifier, question answering) or to the pooler's output (sequence
//! classifier, next sentence). **Masked LM**: `y = norm(activation(Transform(x)))`, then the logit of a word
//! is `Sfma(y, row) + bias`, rows read as in the embeddings.
//!
//! # What is promised
//! For a well-formed file (see below) and finite values throughout, all outputs have the same bits
//! * on every instruction set and target, with and without `std`;
//! * for any [`crate::Executor`] and any number of threads;
//! * whatever inputs the encoder processed before;
//! * for unmasked tokens, whether masked tokens follow them or not (padding);
//! * whatever other outputs the same pass fills.
//!
//! # What is not
//! * NaN and infinities, in weights or by overflow: the call touches only memory that it was given, and
//!   returns [`crate::RunError::NotFinite`] if a state or the answer is not finite. An overflow inside of
//!   a layer that leaves its output finite may give other bits on another instruction set; weights of a
//!   size that a training leaves do not overflow.
//! * Files that break [the rules for numbers](crate::format#numbers), which the writer never produces.
//!   [`crate::Model::verify`] refuses them.
//! * Masked tokens before unmasked ones shift the partial sums of the softmax: the result is correct,
//!   but its bits differ from those of the input without the masked tokens.
