import { compareCheckpointing } from '../src/recipes/run/compare-checkpointing.ts';
import { modelFromConfig } from '../src/models/from-config.ts';
import { Generator } from '../src/tensor/generator.ts';
import { hubConfig } from '../src/recipes/config/model-keys.ts';
const shape = await hubConfig({ hidden_size: 32, num_hidden_layers: 4, num_attention_heads: 2 } as never, {vocabSize:257, eosId:256, length:32});
const mk=(s)=>({inputs:Int32Array.from({length:64},(_,i)=>(i*37+s*i*i)%256), targets:Int32Array.from({length:64},(_,i)=>((i+1)*37+s*(i+1)*(i+1))%256), segmentIds:new Int32Array(64), positionIds:new Int32Array(64), rows:2, sequenceLength:32, targetCount:64});
for (let rep=0; rep<15; rep++) {
  const t = compareCheckpointing({ build: () => modelFromConfig(shape, {generator: new Generator(0)}), optimizer: {type:'adamw', lr:4e-3, weight_decay:0.1, decay_norms:false, betas:[0.9,0.98]} as never, clipGradNorm:1, batches:[mk(1),mk(2),mk(3)] });
  const l=t.map(x=>x.loss);
  if (new Set(l.slice(0,3)).size>1 || new Set(l.slice(3)).size>1) console.log(rep, l.join(' '));
}
console.log('done'); process.exit(0);
