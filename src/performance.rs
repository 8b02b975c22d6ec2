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
//! TABLE
//!
//! # What bounds it
//! **Few tokens: bandwidth.** Every weight is read once a forward pass: 10.6 MB here, more than the
//! second-level cache holds. One core of that machine reads 30 GB/s from the third level, whatever the
//! pattern, so 8 tokens cannot take less than 0.35 ms: 240 of 460 GMAC/s in the products, less in the
//! whole. From 16 tokens on a tile multiplies long enough to hide the stream, if it is spread evenly:
//! every tile asks for its share of the next panels' weights.
//!
//! **Many tokens: instructions.** The tile of eight tokens by 48 outputs reaches 94 to 98 % of the
//! peak from the first-level cache. The rest shares the same two ports: per token and layer about
//! 13,800 cycles of products at the peak, then (128 tokens) 2,300 in attention, 1,270 in quantising and
//! rotating with GELU, 430 in the norms, 400 in packing queries, keys and values.
//!
//! **Long inputs: the probabilities.** 15-bit probabilities take the 16-bit product, at half the rate,
//! and each exponential sixteen instructions; both grow with the square of the length.
//!
//! PROFILE
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
//! * **Page faults.** A file's pages are mapped on first touch: `checks` of a cold process show 2 ms from
//!   start to the first vector of 16 tokens beyond the pass itself, with the file in the page cache.
//! * **AVX-512** is used where std detects F, BW, DQ, VL and VNNI, which includes that the operating
//!   system saves its registers. It doubles AVX-VNNI here; where it does not, `--isa` or `BERTLET_ISA`
//!   takes another.
