// How the GPU kernels of matrix products bring a BM x BK tile of A and a BN x BK tile of B to workgroup memory (after lib/gemm.wgsl, whose addresses
// they read). A tile travels storage -> registers (fetch) -> workgroup memory (stow), so that the next one is on its way while this one is multiplied.
//
// Constants: BM, BN, BK, THREADS (powers of two, THREADS >= BM, BN, BK); F16 (staged as f16); TAIL (K2 is not a multiple of 4: what follows a row's end
// is masked); A_K, B_K (staged k-major, tile[k][row], else row-major, tile[row][k]; A in TN and B in NN and TN must be k-major); PAD (elements between
// the staged runs, to keep them off each other's banks). One unit is what one load brings: a vec4 or an element. A run is a tile's part of one row
// of memory: A_RUN, B_RUN units, so the workgroup brings A_STEP, B_STEP runs at a time, in A_ROUNDS, B_ROUNDS rounds (A_WHOLE, B_WHOLE: with no one idle).
// Whatever of the addresses the k loop does not change is worked out before it: integer division is dear. What lies outside the operands is staged as 0.
#if F16
alias Staged = f16;
#else
alias Staged = f32;
#end
const PITCH_A = ${A_K * BM + (1 - A_K) * BK + PAD}u;
const PITCH_B = ${B_K * BN + (1 - B_K) * BK + PAD}u;
var<workgroup> tile_a: array<Staged, ${(A_K * BM + (1 - A_K) * BK + PAD) * (A_K * BK + (1 - A_K) * BM)}>;
var<workgroup> tile_b: array<Staged, ${(B_K * BN + (1 - B_K) * BK + PAD) * (B_K * BK + (1 - B_K) * BN)}>;

#if A_VEC
alias UnitA = vec4f;
#else
alias UnitA = f32;
#end
#if B_VEC
alias UnitB = vec4f;
#else
alias UnitB = f32;
#end
const WA = ${1 + 3 * A_VEC};
const WB = ${1 + 3 * B_VEC};
const OUTSIDE = -0x40000000;   // a position that no tap brings back into range

#for s in 0..A_ROUNDS
var<private> next_a${s}: UnitA;
#if MODE < 2
var<private> outer_a${s}: i32;
var<private> pos_a${s}: i32;
var<private> row_a${s}: i32;   // where the row of this tap starts, or -1
#end
#end
#for s in 0..B_ROUNDS
var<private> next_b${s}: UnitB;
#if MODE == 0
var<private> col_b${s}: i32;   // where the column's run along k starts, or -1
var<private> row_b${s}: i32;
#end
#end
var<private> unit_a: i32;      // this invocation's first run of A's tile (a row in NT and NN, a k in TN), and how far along it its units lie
var<private> along_a: i32;
var<private> unit_b: i32;
var<private> along_b: i32;
var<private> run_a: i32;       // TN: where k2 = unit_a of this k1 starts, or -1
var<private> run_b: i32;       // NN, TN: where k2 = unit_b (NN) or position 0 (TN) of this k1 starts, or -1
var<private> pos_b: i32;       // TN: position of k2 = unit_b
var<private> base_a: i32;
var<private> base_b: i32;

// What a workgroup adds up: batch (z0, z1), and `steps` blocks of BK from block `first` of k = (k1, k2) on; `c0` stands for z0 in the address of C.
struct Share { z0: i32, z1: i32, c0: i32, first: i32, steps: i32 }

// Grid layer z is a batch; with SPLIT it is a part of one's sum, of p.tile_rows blocks: parts lie between z0 and z1, and C has room for each.
fn share_of(z: i32) -> Share {
  let z1 = z % p.nz1;
  // Phases without a tap have nothing to sum.
  let steps = ((p.K1 - z1 * p.k1_z + p.k1_div - 1) / p.k1_div) * ((p.K2 + ${BK - 1}) / ${BK});
#if SPLIT
  let parts = (steps + p.tile_rows - 1) / p.tile_rows;
  let c0 = z / p.nz1;
  let first = (c0 % parts) * p.tile_rows;
  return Share(c0 / parts, z1, c0, first, min(p.tile_rows, steps - first));
#else
  return Share(z / p.nz1, z1, z / p.nz1, 0, steps);
#end
}

// Aims at the tile of rows m0 .. and columns n0 .. of batch z.
fn stage_start(index: i32, m0: i32, n0: i32, z0: i32, z1: i32) {
  base_a = p.a_off + z0 * p.a_z0 + z1 * p.a_z1;
  base_b = p.b_off + z0 * p.b_z0 + z1 * p.b_z1;
#if MODE < 2
  along_a = index % ${A_RUN};
  unit_a = index / ${A_RUN};
#for s in 0..A_ROUNDS
  {
    let m = m0 + unit_a + ${s * A_STEP};
    outer_a${s} = base_a + (m / p.m_inner) * p.a_outer;
    pos_a${s} = select(OUTSIDE, p.a_pos0 + (m % p.m_inner) * p.a_step, m < p.M && unit_a < ${BM});
  }
#end
#else
  along_a = index % ${A_RUN};
  unit_a = index / ${A_RUN};
  base_a = select(OUTSIDE, base_a + m0 / WA + along_a + unit_a * p.a_row, m0 + along_a * WA < p.M && unit_a < ${BK});
#end
#if MODE == 0
  along_b = index % ${B_RUN};
  unit_b = index / ${B_RUN};
#for s in 0..B_ROUNDS
  {
    let n = n0 + unit_b + ${s * B_STEP};
    col_b${s} = select(OUTSIDE, base_b + n * p.b_row, n < p.N && unit_b < ${BN});
  }
#end
#else
  along_b = index % ${B_RUN};
  unit_b = index / ${B_RUN};
  let n = n0 + along_b * WB;
#if MODE == 1
  base_b = select(OUTSIDE, base_b + n / WB + unit_b * p.b_row, n < p.N && unit_b < ${BK});
#else
  base_b = select(OUTSIDE, base_b + (n % p.b_inner) / WB, n < p.N && unit_b < ${BK});
  pos_b = p.b_pos0 + (n / p.b_inner) * p.b_tap + unit_b * p.b_step;
#end
#end
}

// Aims at tap or batch k1.
fn stage_aim(k1: i32) {
#if MODE < 2
#for s in 0..A_ROUNDS
  {
    let at = pos_a${s} + k1 * p.a_tap;
    row_a${s} = select(-1, outer_a${s} + at * p.a_row, at >= 0 && at < p.a_len);
  }
#end
#else
  run_a = select(-1, base_a + k1 * p.a_outer, base_a >= 0);
#end
#if MODE == 0
#for s in 0..B_ROUNDS
  row_b${s} = select(-1, col_b${s} + k1 * p.b_k1, col_b${s} >= 0);
#end
#else
  run_b = select(-1, base_b + k1 * p.b_k1, base_b >= 0);
#end
}

// Loads what is staged next: k2 from k0 on.
fn stage_fetch(k0: i32) {
#if MODE < 2
  {
    let k = k0 + along_a * WA;
#for s in 0..A_ROUNDS
    next_a${s} = UnitA();
    if (row_a${s} >= 0 && k < p.K2) { next_a${s} = a[row_a${s} + k / WA]; }
#if A_VEC && TAIL
    next_a${s} = select(vec4f(), next_a${s}, vec4i(k) + vec4i(0, 1, 2, 3) < vec4i(p.K2));
#end
#end
  }
#else
#for s in 0..A_ROUNDS
  next_a${s} = UnitA();
  if (run_a >= 0 && k0 + unit_a + ${s * A_STEP} < p.K2) { next_a${s} = a[run_a + (k0 + ${s * A_STEP}) * p.a_row]; }
#end
#end
#if MODE == 0
  {
    let k = k0 + along_b * WB;
#for s in 0..B_ROUNDS
    next_b${s} = UnitB();
    if (row_b${s} >= 0 && k < p.K2) { next_b${s} = b[row_b${s} + k / WB]; }
#if B_VEC && TAIL
    next_b${s} = select(vec4f(), next_b${s}, vec4i(k) + vec4i(0, 1, 2, 3) < vec4i(p.K2));
#end
#end
  }
#end
#if MODE == 1
#for s in 0..B_ROUNDS
  next_b${s} = UnitB();
  if (run_b >= 0 && k0 + unit_b + ${s * B_STEP} < p.K2) { next_b${s} = b[run_b + (k0 + ${s * B_STEP}) * p.b_row]; }
#end
#end
#if MODE == 2
#for s in 0..B_ROUNDS
  {
    let k = k0 + ${s * B_STEP};
    let at = pos_b + k * p.b_step;
    next_b${s} = UnitB();
    if (run_b >= 0 && k + unit_b < p.K2 && at >= 0 && at < p.b_len) { next_b${s} = b[run_b + at * p.b_row]; }
  }
#end
#end
}

// Writes what was fetched to workgroup memory; between barriers.
fn stage_stow() {
#for s in 0..A_ROUNDS
  {
#if MODE < 2
    let r = u32(unit_a) + ${s * A_STEP}u;
    let k = u32(along_a * WA);
#else
    let r = u32(along_a * WA);
    let k = u32(unit_a) + ${s * A_STEP}u;
#end
#if A_WHOLE
    {
#else
    if (r < ${BM}u && k < ${BK}u) {
#end
#for j in 0..1 + 3 * A_VEC
#if MODE < 2
#if A_K
      tile_a[(k + ${j}u) * PITCH_A + r] = Staged(vec4f(next_a${s})[${j}]);
#else
      tile_a[r * PITCH_A + k + ${j}u] = Staged(vec4f(next_a${s})[${j}]);
#end
#else
      tile_a[k * PITCH_A + r + ${j}u] = Staged(vec4f(next_a${s})[${j}]);
#end
#end
    }
  }
#end
#for s in 0..B_ROUNDS
  {
#if MODE == 0
    let r = u32(unit_b) + ${s * B_STEP}u;
    let k = u32(along_b * WB);
#else
    let r = u32(along_b * WB);
    let k = u32(unit_b) + ${s * B_STEP}u;
#end
#if B_WHOLE
    {
#else
    if (r < ${BN}u && k < ${BK}u) {
#end
#for j in 0..1 + 3 * B_VEC
#if MODE == 0
#if B_K
      tile_b[(k + ${j}u) * PITCH_B + r] = Staged(vec4f(next_b${s})[${j}]);
#else
      tile_b[r * PITCH_B + k + ${j}u] = Staged(vec4f(next_b${s})[${j}]);
#end
#else
      tile_b[k * PITCH_B + r + ${j}u] = Staged(vec4f(next_b${s})[${j}]);
#end
#end
    }
  }
#end
}
