import { backward, compile, scope, tensor, item, Generator, applyActivationCheckpointing, toHost } from 'retune';
import { byteLlama } from 'retune/models';
import { AdamW, clipFactor } from 'retune/optim';
const mode = process.argv[2] ?? 'compiled';
const B=2,T=32;
const r=()=>tensor(Int32Array.from({length:B*T},(_, i)=>(i*37+i*i)%256),{shape:[B,T]});
const a=r(), b=r();
const seen = new Map();
let n=0;
for (let rep=0; rep<40; rep++) {
  const spec = ['none','full'][rep%2];
  const model = byteLlama({ hidden: 32, layers: 4, heads: 2, vocabSize: 257, generator: new Generator(0) });
  applyActivationCheckpointing(model, {mode: spec}, {logger: ()=>{}});
  const opt = new AdamW(model.namedParameters(), { lr: 4e-3 });
  const body = (tokens, targets) => {
    const loss = model.call(tokens, { targets });
    backward(loss);
    const {norm, factor} = clipFactor(model.parameters(), 1);
    opt.step({factor}); opt.zeroGrad();
    return [loss.detach(), norm];
  };
  const step = mode==='compiled' ? compile(body) : body;
  const out=[];
  for (let i=0;i<4;i++) scope(()=>{ const [l,g]=step(a,b); out.push(item(l), item(g)); });
  const key=out.join(' ');
  seen.set(key,(seen.get(key)??0)+1);
  if (seen.get(key)===1) console.log(rep, spec, key);
  step.dispose?.(); opt.dispose(); model.dispose();
}
console.log(mode, [...seen.values()]);
process.exit(0);
