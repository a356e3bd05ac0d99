// One call of a JavaScript client: `node client.mjs '{"client": "AISDK", "call": "text", "url": …, "model": …, "stream": true, …}'`.
// It prints what the client returned as JSON, or {"error": class, "message": …}.

import { createAnthropic } from "@ai-sdk/anthropic"
import { createOpenAI } from "@ai-sdk/openai"
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import Anthropic from "@anthropic-ai/sdk"
import { embed, generateObject, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai"
import OpenAI from "openai"

const asked = JSON.parse(process.argv[2])
const { model, embedder, stream, named, schema } = asked
const baseURL = `${asked.url}/v1`
const prompt = "Weather in Paris?"
const messages = [{ role: "user", content: prompt }]
const apiKey = "none"
const called = (name, input) => [name, typeof input === "string" ? JSON.parse(input) : input]

// The AI SDK, over the providers that reach LM Studio.
class AISDK {
  provider = createOpenAICompatible({ name: "lmstudio", baseURL, apiKey })
  model = this.provider(model)
  embedder = this.provider.textEmbeddingModel?.(embedder)

  async run(options) {
    const settings = { model: this.model, prompt, maxRetries: 0, ...options }
    if (!stream) return generateText(settings)
    const result = streamText({ ...settings, onError: () => undefined })
    for await (const part of result.fullStream) if (part.type === "error") throw part.error
    return { text: await result.text, toolCalls: await result.toolCalls }
  }

  weather(execute) {
    return { get_weather: tool({ description: "Tell the weather.", inputSchema: jsonSchema(schema), execute }) }
  }

  async calls() {
    const toolChoice = named ? { type: "tool", toolName: "get_weather" } : "auto"
    const { toolCalls } = await this.run({ tools: this.weather(), toolChoice })
    return toolCalls.map((call) => called(call.toolName, call.input))
  }

  async text() {
    return (await this.run({})).text
  }

  async answer_after_tools() {
    return (await this.run({ tools: this.weather(async () => "21"), stopWhen: stepCountIs(3) })).text
  }

  async json() {
    return (await generateObject({ model: this.model, prompt, schema: jsonSchema(schema), maxRetries: 0 })).object
  }

  async embed() {
    return (await embed({ model: this.embedder, value: "Paris", maxRetries: 0 })).embedding
  }
}

class AISDKResponses extends AISDK {
  provider = createOpenAI({ baseURL, apiKey })
  model = this.provider.responses(model)
  embedder = this.provider.textEmbeddingModel(embedder)
}

class AISDKAnthropic extends AISDK {
  model = createAnthropic({ baseURL, apiKey })(model)
}

class OpenAINode {
  client = new OpenAI({ baseURL, apiKey, maxRetries: 0 })
  tool = { type: "function", function: { name: "get_weather", parameters: schema } }

  async message(options) {
    const request = { model, messages, ...options }
    if (stream) return (await this.client.chat.completions.stream(request).finalChatCompletion()).choices[0].message
    return (await this.client.chat.completions.create(request)).choices[0].message
  }

  async calls() {
    const tool_choice = named ? { type: "function", function: { name: "get_weather" } } : "auto"
    const { tool_calls } = await this.message({ tools: [this.tool], tool_choice })
    return (tool_calls ?? []).map((call) => called(call.function.name, call.function.arguments))
  }

  async text() {
    return (await this.message({})).content
  }

  async answer_after_tools() {
    const run = { ...this.tool.function, function: () => "21", parse: JSON.parse, description: "Tell the weather." }
    const tools = [{ type: "function", function: run }]
    return this.client.chat.completions.runTools({ model, messages, tools, stream }).finalContent()
  }

  async json() {
    return JSON.parse((await this.message({ response_format: { type: "json_object" } })).content)
  }

  async embed() {
    return (await this.client.embeddings.create({ model: embedder, input: "Paris" })).data[0].embedding
  }
}

class AnthropicNode {
  client = new Anthropic({ baseURL: asked.url, apiKey, maxRetries: 0 })
  tools = [{ name: "get_weather", input_schema: schema }]

  async message(said, options) {
    const request = { model, max_tokens: 500, messages: said, ...options }
    return stream ? this.client.messages.stream(request).finalMessage() : this.client.messages.create(request)
  }

  async calls() {
    const tool_choice = named ? { type: "tool", name: "get_weather" } : { type: "auto" }
    const { content } = await this.message(messages, { tools: this.tools, tool_choice })
    return content.filter((block) => block.type === "tool_use").map((block) => called(block.name, block.input))
  }

  async text() {
    return textOf(await this.message(messages))
  }

  async answer_after_tools() {
    const { content } = await this.message(messages, { tools: this.tools })
    const result = { type: "tool_result", tool_use_id: content.find((block) => block.type === "tool_use").id, content: "21" }
    const said = [...messages, { role: "assistant", content }, { role: "user", content: [result] }]
    return textOf(await this.message(said, { tools: this.tools }))
  }
}

function textOf(message) {
  return message.content.filter((block) => block.type === "text").map((block) => block.text).join("")
}

const clients = { AISDK, AISDKResponses, AISDKAnthropic, OpenAINode, AnthropicNode }
try {
  console.log(JSON.stringify({ value: await new clients[asked.client]()[asked.call]() }))
} catch (error) {
  console.log(JSON.stringify({ error: error.constructor.name, message: String(error.message) }))
}
