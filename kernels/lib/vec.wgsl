// The element of row kernels: a vec4 where rows are whole vec4s (VEC), else a number; and its sum, maximum, inner product and squared length.
#if VEC
alias V = vec4f;
fn across(v: V) -> f32 { return (v.x + v.y) + (v.z + v.w); }
fn largest(v: V) -> f32 { return max(max(v.x, v.y), max(v.z, v.w)); }
fn inner(x: V, y: V) -> f32 { return dot(x, y); }
#else
alias V = f32;
fn across(v: V) -> f32 { return v; }
fn largest(v: V) -> f32 { return v; }
fn inner(x: V, y: V) -> f32 { return x * y; }
#end
fn square(v: V) -> f32 { return inner(v, v); }
