// Sum and maximum over a subgroup of ${SG} lanes, in every lane: log2 steps of a butterfly, several times cheaper than subgroupAdd on CPU adapters. SG is 4 to 32.
// Include after `enable subgroups;`, in kernels whose workgroup is one subgroup.
fn lanes_sum(v: vec2f) -> vec2f {
  var sum = v;
  sum += subgroupShuffleXor(sum, 1u);
  sum += subgroupShuffleXor(sum, 2u);
#if SG >= 8
  sum += subgroupShuffleXor(sum, 4u);
#end
#if SG >= 16
  sum += subgroupShuffleXor(sum, 8u);
#end
#if SG >= 32
  sum += subgroupShuffleXor(sum, 16u);
#end
  return sum;
}

fn lanes_max(v: f32) -> f32 {
  var top = v;
  top = max(top, subgroupShuffleXor(top, 1u));
  top = max(top, subgroupShuffleXor(top, 2u));
#if SG >= 8
  top = max(top, subgroupShuffleXor(top, 4u));
#end
#if SG >= 16
  top = max(top, subgroupShuffleXor(top, 8u));
#end
#if SG >= 32
  top = max(top, subgroupShuffleXor(top, 16u));
#end
  return top;
}
