/** Generating text token by token, with a key/value cache and reproducible sampling. */

import { Generator } from 'retune';
import { ByteTokenizer, StreamingDecoder } from 'retune/data';
import { byteLlama, generate } from 'retune/models';

// Untrained, so the text is noise; with loadModel('runs/quickstart/model') it is not.
const model = byteLlama({ hidden: 64, layers: 2, generator: new Generator(1) });
const tokenizer = new ByteTokenizer();

async function write(seed: number): Promise<string> {
  const decoder = new StreamingDecoder(tokenizer);
  let text = '';
  const { tokens, reason } = await generate(model, tokenizer.encode('Hello'), {
    maxNewTokens: 40,
    temperature: 0.9,
    topK: 40,
    generator: new Generator(seed),
    // Called as each token is chosen; print the pieces to show them as they come.
    onToken: (token) => {
      text += decoder.push(token);
    },
  });
  text += decoder.finish();
  console.log(`seed ${seed}: ${tokens.length} tokens, ended by ${reason}: ${JSON.stringify(text)}`);
  return text;
}

const [first, again, other] = [await write(7), await write(7), await write(8)];
if (first !== again || first === other) throw new Error('sampling does not follow the seed');
