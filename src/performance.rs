//! How fast the runtime is, what bounds it, and what was tried.
//!
//! # How it is measured
//! `bertlet bench MODEL` counts the multiply-adds of the linear layers and of attention
//! ([`crate::Config::multiply_adds`]) and, turn by turn in the same run, what the CPU can do in registers
//! alone: the product instruction of the instruction set in a loop, int8 for int8 files, fused f32 for
//! the others. The fraction of that peak is what can be compared between machines and between
//! moments of a busy one. `--profile` splits the time by kernel, `--protocol` lets another program
//! pace it; `benches/peers/run` times other runtimes in the same rounds. `cargo bench` has every
//! kernel on every instruction set, and the encoder by length.
//!
//! # all-MiniLM-L6-v2, one thread
//! A virtual Xeon of the Sapphire Rapids generation, 2 MB of second-level cache; medians of
//! `bertlet bench`, fraction of each instruction set's own peak:
//!
//! | tokens | 8 | 16 | 32 | 64 | 128 | 256 | 512 |
//! |---|---|---|---|---|---|---|---|
//! | AVX-512 VNNI, ms | 0.44 | 0.64 | 1.05 | 2.10 | 4.42 | 9.76 | 24.0 |
//! | of 380 to 455 GMAC/s | 47 % | 69 % | 73 % | 73 % | 72 % | 68 % | 61 % |
//! | AVX-VNNI, of 210 GMAC/s | 52 % | 67 % | 71 % | 70 % | 68 % | 60 % | 59 % |
//! | AVX2, of 73 GMAC/s | 77 % | 79 % | 79 % | 78 % | 76 % | 75 % | 75 % |
//!
//! Two threads are 1.88 times as fast as one at 128 tokens (shortest times, MiniLM).
//!
//! BERT-base's shape reaches 83 % at 128 tokens. Of the peak of fused multiply-adds, f32 files reach 79,
//! 87 and 83 % at 16, 128 and 512 tokens, f16 files 70, 74 and 72 %: half-precision weights are widened
//! in the tile.
//!
//! # What bounds it
//! **Few tokens: bandwidth.** Every weight is read once a forward pass: 10.6 MB here, more than the
//! second-level cache holds. One core of that machine reads 30 GB/s from the third level, whatever the
//! pattern, so 8 tokens cannot take less than 0.35 ms, which is 53 % of the peak at full clock. From 16 tokens on a tile multiplies long enough to hide the stream, if it is spread evenly:
//! every tile asks for its share of the next panels' weights.
//!
//! **Many tokens: instructions.** The tile of eight tokens by 48 outputs reaches 94 to 98 % of the
//! peak from the first-level cache. The rest shares the same two ports: per token and layer 13,800 cycles
//! of products at the peak, then (128 tokens) 2,300 in attention, 1,500 in quantising and rotating with
//! GELU, 430 in the norms, 400 in packing queries, keys and values.
//!
//! **Long inputs: the probabilities.** 15-bit probabilities take the 16-bit product, at half the rate,
//! and each exponential sixteen instructions; both grow with the square of the length.
//!
//! `bertlet bench --profile` on that machine, percent of the time of an input:
//!
//! | tokens | `linear_int8` | `attend_int8` | `quantize` | `pack_int8` | `add_norm` | `add_row` | between |
//! |---|---|---|---|---|---|---|---|
//! | 8 | 83 | 3 | 6 | 2 | 2 | 1 | 3 |
//! | 128 | 72 | 12 | 8 | 3 | 3 | 1 | 1 |
//! | 512 | 52 | 36 | 6 | 2 | 2 | 1 | 1 |
//!
//! # What is fused
//! * Queries, keys and values are one product. Dequantisation and bias are a tile's last step.
//! * Activation, rotation and quantisation are one pass over rows that stand in the cache; GELU has a
//!   polynomial as short as int8 allows.
//! * Up to 48 tokens go through a layer together: the intermediate state is never a
//!   `[tokens, intermediate]` matrix, and no weight is read more often than every 48 tokens.
//! * Scores, softmax and context of sixteen queries and one head at a time; memory is linear in the
//!   length.
//! * Rows take their steps four or sixteen at a time, so that none waits for its own sum, maximum or
//!   division.
//!
//! # What is left
//! * While a few tokens are quantised and attended to, the memory stands idle: fetching the next matrix
//!   then would be worth up to a tenth at 8 tokens.
//! * Pairs of tokens 16 apart, not neighbours, would save the exponentials two instructions in 28.
//! * The last norm of a layer could be quantised for the next one while it stands in the cache.
//!
//! # What did not help
//! * Prefetching a fixed distance ahead in each panel: short inputs only. Prefetching all of the next
//!   panels in the first tile that could: the line buffers fill, and the products wait.
//! * Prefetching into the second-level cache instead of the first: a little worse.
//! * Eight queries at a time for long inputs, so that their scores stay in the first-level cache: no
//!   difference.
//! * Huge pages for the weights: no difference in a stream (measured with anonymous memory; files
//!   get none).
//! * Widening f16 weights into a buffer once for all rows: as fast for many rows, slower for few. Tiles
//!   of sixteen tokens by one panel for f16: no better than eight by three; twelve by two are 6 % better.
//! * `vreduceps` towards minus infinity would save an instruction in each exponential, but rounds the
//!   difference itself downwards: other bits.
//! * `vpdpwssd` by its intrinsic: the compiler takes it apart into a product and a sum.
//! * Closures in kernels: the compiler may leave them outside the function that has the instruction set,
//!   and then every operation is a call, ten times slower. Kernels use functions and macros.
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
