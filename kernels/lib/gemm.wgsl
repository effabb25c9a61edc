// What every matrix product kernel shares: C[z] = epilogue(sum over (k1, k2) of A[z] * B[z]), with addresses general enough that matmul, linear, all
// three products of a convolution and of a transposed one, and multi-head attention are the same kernel.
//
//   MODE 0 (NT)  A[m, k] runs along k, B[n, k] runs along k      linear forward, convolution forward, q k^T
//   MODE 1 (NN)  A[m, k] runs along k, B[k, n] runs along n      linear and convolution input gradient, p v
//   MODE 2 (TN)  A[k, m] runs along m, B[k, n] runs along n      weight gradients, p^T do
//
// z = (z0, z1) are batch indices with a stride each. Rows m = (outer, inner): batch and time. k = (k1, k2): convolution tap and channel (NT, NN),
// batch and time (TN). A position (time step) outside [0, len) reads as 0: that is zero padding. Units: elements; vec4s where A_VEC, B_VEC, C_VEC.
// Epilogue: + bias[n] (BIAS), GELU with the argument kept in `pre` (ACT), * gelu'(pre) (DACT), + residual (RES), scaled by `alpha` first.
struct P {
  M: i32, N: i32, K1: i32, K2: i32, nz1: i32,
  m_inner: i32,                    // rows per outer index
  k1_div: i32, k1_z: i32,          // taps of phase z1: ceil((K1 - z1 * k1_z) / k1_div)
  a_z0: i32, a_z1: i32, a_off: i32,
  a_outer: i32, a_row: i32,        // per outer index, per position (NT, NN); per k1, per k2 (TN)
  a_pos0: i32, a_step: i32, a_tap: i32, a_len: i32,   // position = pos0 + inner * step + k1 * tap (NT, NN)
  b_z0: i32, b_z1: i32, b_off: i32,
  b_k1: i32, b_row: i32,           // per k1; per n (NT), per k2 (NN), per position (TN)
  b_inner: i32,                    // columns per tap (TN): n = tap * b_inner + column
  b_pos0: i32, b_step: i32, b_tap: i32, b_len: i32,   // position = pos0 + k2 * step + tap * b_tap (TN)
  c_z0: i32, c_z1: i32, c_off: i32,
  c_outer: i32, c_row: i32,
  c_pos0: i32, c_step: i32, c_zpos: i32, c_len: i32,  // position = pos0 + inner * step + z1 * zpos
  bias_z0: i32,
  tile_rows: i32,                  // TM of gemm_subgroup
  m_blocks: i32,                   // row tiles fill y up to 65535, then blocks of z: w.z = z * m_blocks + block
  a_width: i32, a_blocks: i32, b_width: i32, b_blocks: i32,   // operands in panels: vec4s in a row of the tensor, layers a panel
  alpha: f32,
}
#if A_IMAGE
#if A_IMAGE == 1
@group(0) @binding(0) var a: texture_storage_2d<rgba32float, read>;
#else
@group(0) @binding(0) var a: texture_storage_2d_array<rgba32float, read>;
#end
#else
#if A_VEC
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
#else
@group(0) @binding(0) var<storage, read> a: array<f32>;
#end
#end
#if B_IMAGE
#if B_IMAGE == 1
@group(0) @binding(1) var b: texture_storage_2d<rgba32float, read>;
#else
@group(0) @binding(1) var b: texture_storage_2d_array<rgba32float, read>;
#end
#else
#if B_VEC
@group(0) @binding(1) var<storage, read> b: array<vec4f>;
#else
@group(0) @binding(1) var<storage, read> b: array<f32>;
#end
#end
#if C_VEC
@group(0) @binding(2) var<storage, read_write> c: array<vec4f>;
#else
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
#end
@group(0) @binding(3) var<uniform> p: P;
#if BIAS
@group(0) @binding(4) var<storage, read> bias: array<f32>;
#end
#if ACT
#if C_VEC
@group(0) @binding(5) var<storage, read_write> pre: array<vec4f>;
#else
@group(0) @binding(5) var<storage, read_write> pre: array<f32>;
#end
#end
#if DACT
#if C_VEC
@group(0) @binding(5) var<storage, read> pre: array<vec4f>;
#else
@group(0) @binding(5) var<storage, read> pre: array<f32>;
#end
#end
#if RES
#if C_VEC
@group(0) @binding(6) var<storage, read> residual: array<vec4f>;
#else
@group(0) @binding(6) var<storage, read> residual: array<f32>;
#end
#end

// The bias of columns n .. n + 3 (past N: any value, those are not stored).
fn bias_at(n: i32, z0: i32) -> vec4f {
#if BIAS
  let at = n + z0 * p.bias_z0;
  return vec4f(bias[at], bias[at + 1], bias[at + 2], bias[at + 3]);
#else
  return vec4f();
#end
}

// Stores four neighbouring columns n .. n + 3 of the row that starts at `row` (in units of C).
fn store(row: i32, n: i32, sum: vec4f, offset: vec4f) {
  var v = sum * p.alpha;
#if BIAS
  v += offset;
#end
#if C_VEC
  let at = row + (n >> 2u);
#if ACT
  pre[at] = v;
  v = gelu(v);
#end
#if DACT
  v *= gelu_slope(pre[at]);
#end
#if RES
  v += residual[at];
#end
  c[at] = v;
#else
  let at = row + n;
#for j in 0..4
  if (n + ${j} < p.N) {
#if ACT
    pre[at + ${j}] = v[${j}];
    v[${j}] = gelu(vec4f(v[${j}])).x;
#end
#if DACT
    v[${j}] *= gelu_slope(vec4f(pre[at + ${j}])).x;
#end
#if RES
    v[${j}] += residual[at + ${j}];
#end
    c[at + ${j}] = v[${j}];
  }
#end
#end
}
