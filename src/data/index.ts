/** Public entry `retune/data`: tokenizers, corpora, batches, safetensors files and safe writing. */

export {
  type Batch,
  type BatchOptions,
  type BatchSource,
  type BatchState,
  BatchStream,
  evaluationBatches,
  readBatch,
} from './corpus/batches.ts';
export {
  type ChatTemplate,
  chatTemplate,
  chatTemplates,
  type Piece,
} from './corpus/chat-template.ts';
export {
  type Conversation,
  type Message,
  parseConversations,
  type Role,
  readConversations,
} from './corpus/conversation.ts';
export {
  InstructionDataset,
  type InstructionOptions,
  type TokenizedExample,
  tokenizeConversation,
} from './corpus/instruction-dataset.ts';
export { orderTwoByteLoss } from './corpus/order-two.ts';
export { PackedDataset, type PackOptions } from './corpus/packed-dataset.ts';
export { permutedIndex } from './corpus/permutation.ts';
export { Prefetcher } from './corpus/prefetch.ts';
export {
  ignoreIndex,
  paddingSegment,
  type SequenceDataset,
  type SequenceRow,
} from './corpus/sequence-dataset.ts';
export { type Split, splitByBlocks, splitByDocument } from './corpus/split.ts';
export {
  type DocumentReadOptions,
  defaultExtensions,
  type FindOptions,
  findTextFiles,
  readDocuments,
  type TextDocument,
} from './corpus/text-files.ts';
export {
  MemoryTokens,
  readAllTokens,
  SelectedTokens,
  type TokenRange,
  type TokenSource,
} from './corpus/token-source.ts';
export {
  type DocumentSource,
  type TokenizedCorpus,
  type TokenizeOptions,
  tokenizeCorpus,
} from './corpus/tokenize.ts';
export {
  type AtomicWriteOptions,
  recoverFolder,
  writeFileAtomic,
  writeFolderAtomic,
} from './files/atomic.ts';
export type { FileErrorReason } from '../core/file-error.ts';
export type { FileSystem, FolderEntry, WritableFile } from './files/file-system.ts';
export {
  openSafetensors,
  type SafetensorsFile,
  type TensorInfo,
  type TensorReadOptions,
} from './safetensors/reader.ts';
export {
  type SafetensorsEntry,
  type SavedFiles,
  type SaveOptions,
  saveSafetensors,
} from './safetensors/writer.ts';
export { ByteTokenizer, type ByteTokenizerOptions } from './tokenizer/byte-tokenizer.ts';
export {
  HuggingFaceTokenizer,
  loadTokenizer,
  type SpecialTokens,
} from './tokenizer/hugging-face-tokenizer.ts';
export { StreamingDecoder } from './tokenizer/streaming-decoder.ts';
export type { DecodeOptions, EncodeOptions, Tokenizer } from './tokenizer/tokenizer.ts';
