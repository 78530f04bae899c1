import type { Delivery } from '../relay/index.ts'

/** Bytes of a string in MQTT, at most. */
const stringBytesMax = 65_535

/** Bytes of the packet that a delivery becomes (PUBLISH of MQTT 5 with QoS 1). Infinity: a part of it has no form in MQTT. */
export function mqttPacketBytes(topic: string, { messageId, contentType, headers, body }: Delivery): number {
  // Before each property is its number.
  const userProperties = Object.entries(headers).map(([name, value]) => 1 + stringBytes(name) + stringBytes(value))
  const properties = [1 + stringBytes(contentType), 1 + stringBytes(messageId), ...userProperties]
  const propertyBytes = properties.reduce((sum, bytes) => sum + bytes, 0)
  const packetIdBytes = 2
  const rest = stringBytes(topic) + packetIdBytes + lengthBytes(propertyBytes) + propertyBytes + body.length
  return 1 + lengthBytes(rest) + rest
}

function stringBytes(text: string): number {
  const bytes = Buffer.byteLength(text)
  return bytes > stringBytesMax ? Infinity : 2 + bytes
}

/** Of a length itself: seven bits a byte. */
function lengthBytes(length: number): number {
  return length < 128 ? 1 : length < 16_384 ? 2 : length < 2_097_152 ? 3 : 4
}
