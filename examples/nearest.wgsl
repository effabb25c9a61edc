// labels[row] = the column of the smallest number of the row, or -100 (which cross-entropy leaves out) where mask[row] is 0.
// distances [rows, width]; mask f32 [rows]. Grid: a row per invocation. Any adapter.
struct P { rows: u32, width: u32 }
@group(0) @binding(0) var<storage, read> distances: array<f32>;
@group(0) @binding(1) var<storage, read> mask: array<f32>;
@group(0) @binding(2) var<storage, read_write> labels: array<i32>;
@group(0) @binding(3) var<uniform> p: P;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.x;
  if (row >= p.rows) { return; }
  var best = 0u;
  for (var j = 1u; j < p.width; j++) {
    if (distances[row * p.width + j] < distances[row * p.width + best]) { best = j; }
  }
  labels[row] = select(-100, i32(best), mask[row] != 0.0);
}
