//! How fast the runtime is, what bounds it, and what was tried.
//!
//! # How it is measured
//! `bertlet bench MODEL` counts the multiply-adds of the linear layers and of attention
//! ([`crate::Config::multiply_adds`]) and, turn by turn in the same run, what the CPU can do in registers
//! alone: the product instruction of the instruction set in a loop, int8 for int8 files, fused f32 for
//! the others. The fraction of that peak is what can be compared between machines and between
//! moments of a busy one. The loop has to run for a third of a millisecond or more: over a few
//! microseconds it reaches two thirds of what it reaches later. `--profile` splits the time by kernel,
//! `--protocol` lets another program pace it; `benches/peers/run` times other runtimes in the same
//! rounds. `cargo bench` has every kernel on every instruction set, and the encoder by length.
//!
//! # all-MiniLM-L6-v2, one thread
//! A virtual Xeon of the Sapphire Rapids generation, 2 MB of second-level cache; shortest times and
//! median fractions of each instruction set's own peak, of `bertlet bench`:
//!
//! | tokens | 8 | 16 | 32 | 64 | 128 | 256 | 512 |
//! |---|---|---|---|---|---|---|---|
//! | AVX-512 VNNI, ms | 0.39 | 0.53 | 0.98 | 1.99 | 4.16 | 9.09 | 21.7 |
//! | of 370 to 458 GMAC/s | 48 % | 70 % | 75 % | 75 % | 75 % | 72 % | 67 % |
//! | AVX-VNNI, of 220 GMAC/s | 50 % | 63 % | 67 % | 67 % | 68 % | 64 % | 60 % |
//! | AVX2, of 74 GMAC/s | 75 % | 79 % | 80 % | 79 % | 78 % | 78 % | 77 % |
//!
//! Other runtimes, in turns with bertlet on one idle core of that machine (`benches/peers/run --rounds 8`):
//! how many times as long they take, and how far their mean-pooled vectors are from those of f32
//! (relative L2; bertlet's 0.021). OpenVINO and LiteRT are compiled for each length.
//!
//! | tokens | 8 | 16 | 32 | 64 | 128 | 256 | 512 | L2 |
//! |---|---|---|---|---|---|---|---|---|
//! | LiteRT (XNNPACK), int8 | 1.57 | 1.76 | 1.54 | 1.41 | 1.44 | 1.62 | 1.87 | 0.058 |
//! | OpenVINO, int8 | 1.90 | 1.84 | 1.66 | 1.47 | 1.49 | 1.59 | 1.86 | 0.097 |
//! | ONNX Runtime, int8 | 2.21 | 2.19 | 2.05 | 1.81 | 1.82 | 1.93 | 2.08 | 0.13 |
//! | OpenVINO, f32 | 4.82 | 4.30 | 4.12 | 3.90 | 3.74 | 3.72 | 3.49 | 0 |
//! | candle, f32 | 18.3 | 15.7 | 12.1 | 9.45 | 9.37 | 10.8 | 13.6 | 0 |
//!
//! Two threads are 1.87 times as fast as one at 128 tokens (shortest times, MiniLM).
//!
//! BERT-base's shape reaches 81 % at 128 tokens. Of the peak of fused multiply-adds, f32 files reach 78,
//! 86 and 83 % at 16, 128 and 512 tokens, f16 files 69, 75 and 72 %: half-precision weights are widened
//! in the tile.
//!
//! # What bounds it
//! **Few tokens: bandwidth.** Every weight is read once a forward pass: 10.6 MB here, more than the
//! second-level cache holds. One core of that machine reads 31 to 33 GB/s from the third level, whatever
//! the pattern. Its cache drops what was used least recently, so a cycle through more than it holds hits
//! nothing. At 8 tokens the linear layers alone reach 58 to 60 % of the peak, and that is the stream; the
//! other stages add a fifth to the time. From 16 tokens on a tile multiplies long enough to hide the
//! stream, if it is spread evenly: every tile asks for its share of the next panels' weights.
//!
//! **Many tokens: instructions.** The tile of eight tokens by 48 outputs reaches 94 to 97 % of the
//! peak; 97 % is what its last step, a product and two conversions for each sum, leaves of it. The rest
//! shares the same two ports: per token and layer 13,800 cycles of products at the peak, then (128
//! tokens) 2,050 in attention, 1,480 in quantising and rotating with GELU, 385 in packing queries, keys
//! and values, 285 in the norms: each measured alone, and about 90 % of what the ports can do. In the
//! model they are up to a tenth slower, as their operands come from the second-level cache.
//!
//! **Long inputs: the probabilities.** 15-bit probabilities take the 16-bit product, at half the rate,
//! and 32 exponentials fifteen instructions; both grow with the square of the length.
//!
//! `bertlet bench --profile` on that machine, percent of the time of an input:
//!
//! | tokens | `linear_int8` | `attend_int8` | `quantize` | `pack_int8` | `add_norm` | `add_row` | `accumulate` | between |
//! |---|---|---|---|---|---|---|---|---|
//! | 8 | 83 | 3 | 6 | 2 | 1 | 1 | 1 | 3 |
//! | 128 | 74 | 11 | 8 | 3 | 2 | 1 | 1 | 1 |
//! | 512 | 57 | 31 | 6 | 2 | 2 | 1 | 1 | 1 |
//!
//! # What is fused
//! * Queries, keys and values are one product. Dequantisation and bias are a tile's last step.
//! * Activation, rotation and quantisation are one pass over rows that stand in the cache; GELU has a
//!   polynomial as short as int8 allows.
//! * Up to 48 tokens go through a layer together: the intermediate state is never a
//!   `[tokens, intermediate]` matrix, and no weight is read more often than every 48 tokens. A layer is
//!   three sweeps over these chunks: queries, keys and values; attention; feed-forward, so that the
//!   weights of one sweep stay in the second-level cache.
//! * Scores, softmax and context of sixteen queries and one head at a time; memory is linear in the
//!   length. Powers of two are integers of sixteen bits, thirty-two in a register.
//! * While rows are quantised, the first weights that they will meet are asked for.
//! * Keys are scored in runs of equal tiles: choosing each tile took a twentieth of attention over 512 keys.
//!   Exponents stay in the order in which they are packed, and the context reads its factors there.
//! * Rows take their steps four or sixteen at a time, so that none waits for its own sum, maximum or
//!   division.
//!
//! # What is left
//! * What lies between the stages of attention (largest scores, sums, choosing tiles) is a sixth of it at
//!   128 keys.
//! * A tile in assembly reaches 96.5 % of the peak where the compiler's reaches 94.5 % (48 tokens of 384
//!   inputs to 1,152 outputs).
//! * Prefetching is left to the row kernels' own stage: attention, packing and norms ask for no weights.
//! * The last norm of a layer could be quantised for the next one while it stands in the cache.
//!
//! # What did not help
//! * Prefetching a fixed distance ahead in each panel: short inputs only. Prefetching all of the next
//!   panels in the first tile that could: the line buffers fill, and the products wait.
//! * Prefetching into the second-level cache instead of the first: a little worse.
//! * Keeping some layers' weights in the second-level cache by fetching the others past it
//!   (`prefetchnta`): 18 GB/s instead of 32, since only the line buffers of the first level serve it.
//! * Asking for the next matrix in attention: 0.4 % at 8 tokens, less than nothing at 16. Asking for keys
//!   and values in attention: slower. Asking for words' rows ahead: no difference.
//! * Adding the residual in the product's last step, so that the norm reads one array: every product
//!   becomes slower by more than the norms become faster.
//! * Runs of equal tiles in the products, too, and tiles whose rows have an address each: 1 % alone,
//!   nothing in the model. Unrolling their steps: the compiler then spills sums. The main tile as a
//!   function of its own: 8 % slower.
//! * Asking for weights two panels ahead in the second-level cache while the next ones come to the first:
//!   a little slower.
//! * Exponentials of two queries in turn, and the largest scores of eight queries while the next eight are
//!   scored: no difference.
//! * Norms of eight rows at once: 4 % slower than four. Asking for the next rows while queries and keys
//!   are rounded: 4 % slower.
//! * Eight queries at a time for long inputs, so that their scores stay in the first-level cache: no
//!   difference.
//! * Sums that start from the bits of 1.5 * 2^23 are floats at once; saving that conversion of each score
//!   makes no difference, as storing the scores is what takes the time.
//! * Chunks of 32, 64, 96 or 128 tokens: 48 is best, by up to 2 %.
//! * A polynomial for GELU with one coefficient less: 0.2 %, for five times the error.
//! * Huge pages for the scratch: no difference. For the weights they would save 2 % at 8 and 16 tokens,
//!   nothing beyond, but files get none (measured with a copy in anonymous memory).
//! * Widening f16 weights into a buffer once for all rows: as fast for many rows, slower for few. Tiles
//!   of sixteen tokens by one panel for f16: no better than eight by three; twelve by two are 6 % better.
//! * `vpdpwssd` by its intrinsic: the compiler takes it apart into a product and a sum.
//! * Long closures in kernels: the compiler may leave them outside the function that has the instruction
//!   set, and then every operation is a call, ten times slower. `.ci/run` looks for such symbols.
//!
//! # Looked at
//! * **Alignment.** Panels, states and rows start at multiples of 64 bytes; tiles read single factors at
//!   any address.
//! * **Subnormals.** Exponents are cut at -125 and scales at 1e-30, so none arise from small inputs; the
//!   CPU's mode is left alone, and the bits do not depend on it.
//! * **Streaming stores.** All that is written is read again soon; there is nothing to stream.
//! * **4096-byte aliasing.** Keys and values of one head lay 6 and 12 KB apart, which is a few sets of the
//!   first-level cache for all of them; blocks now have an odd number of places. Rows of 1,024 f32 share
//!   sets too, but a tile reads eight of them, and caches have eight ways or more.
//! * **Page faults.** A file's pages are mapped on first touch. With the file in the page cache, a process
//!   has its first vector of 16 tokens 2 ms after one that does nothing has ended, and needs 14 MB.
//! * **AVX-512** is used where std detects F, BW, DQ, VL and VNNI, which includes that the operating
//!   system saves its registers. It doubles AVX-VNNI here; where it does not, `--isa` or `BERTLET_ISA`
//!   takes another.
