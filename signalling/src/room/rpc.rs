//! Calls of a participant's methods by the server API: the server is the caller. The request goes out as a data packet,
//! and what comes back under its id is the server's own: it is taken out of the stream and forwarded to nobody.
//!
//! Clients answer a caller twice, at once that they are there (`RpcAck`) and later with the result (`RpcResponse`).

use std::collections::BTreeMap;
use std::time::Duration;

use livekit_protocol as proto;
use proto::data_packet::{Kind, Value};
use proto::rpc_response::Value as Answer;

use super::api::{AdminAnswer, AdminError, AdminId, Output};
use super::cx::Cx;
use super::{Room, Timer};
use crate::media::ParticipantId;

/// Who calls, as participants are told: no token gives this identity to a participant unless an operator wants it so.
const CALLER: &str = "weir:server";
/// The version of requests every client understands: the payload is in the packet.
const VERSION: u32 = 1;
/// Longest method name and payload, bytes: what clients take (livekit-client and the Rust SDK).
const MAX_METHOD: usize = 64;
const MAX_PAYLOAD: usize = 15 * 1024;
/// How long a client has to say that it is there; the way there and back that clients reckon with.
const ROUND_TRIP: Duration = Duration::from_secs(7);
/// What a call is given where the caller says nothing, and at most.
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// The least a client is given to answer.
const LEAST: Duration = Duration::from_secs(1);
/// Calls of one room that wait for their answers.
const MAX_CALLS: usize = 64;

/// Calls that wait, by request id.
#[derive(Debug, Default)]
pub(super) struct Calls(BTreeMap<String, Call>);

#[derive(Debug)]
struct Call {
    question: AdminId,
    callee: ParticipantId,
    /// When the answer has to be there.
    until: Duration,
    /// When the client has to have said that it is there; `None`: it has.
    acked_by: Option<Duration>,
}

impl Call {
    fn due(&self) -> Duration {
        self.acked_by.map_or(self.until, |by| by.min(self.until))
    }
}

impl Room {
    /// Ask a participant; the answer to the server API comes later, unless it cannot be asked.
    pub(super) fn call(&mut self, cx: &mut Cx<'_>, question: AdminId, request: proto::PerformRpcRequest) {
        if let Err(error) = self.start_call(cx, question, request) {
            cx.push(Output::Admin { id: question, answer: Err(error) });
        }
    }

    fn start_call(
        &mut self,
        cx: &mut Cx<'_>,
        question: AdminId,
        request: proto::PerformRpcRequest,
    ) -> Result<(), AdminError> {
        if request.method.is_empty() || request.method.len() > MAX_METHOD {
            return Err(AdminError::Invalid("method is empty or longer than 64 bytes"));
        }
        if request.payload.len() > MAX_PAYLOAD {
            return Err(AdminError::Invalid("payload is larger than 15 KiB"));
        }
        let callee = self.find(&request.destination_identity)?;
        if self.calls.0.len() >= MAX_CALLS {
            return Err(AdminError::Unavailable("too many calls wait for answers in this room"));
        }
        let timeout = match request.response_timeout_ms {
            0 => TIMEOUT,
            ms => Duration::from_millis(ms.into()).min(MAX_TIMEOUT),
        };
        let left = timeout.saturating_sub(ROUND_TRIP).max(LEAST);
        let id = self.ids.sid("RPC", "");
        let value = proto::RpcRequest {
            id: id.clone(),
            method: request.method,
            payload: request.payload,
            response_timeout_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
            version: VERSION,
            ..Default::default()
        };
        let packet = proto::DataPacket {
            participant_identity: CALLER.to_owned(),
            destination_identities: vec![request.destination_identity],
            value: Some(Value::RpcRequest(value)),
            ..Default::default()
        };
        if self.send_from_server(cx, Kind::Reliable, packet) == 0 {
            return Err(AdminError::Unavailable("the participant cannot be reached by data now"));
        }
        let acked_by = Some(cx.after(ROUND_TRIP));
        self.calls.0.insert(id, Call { question, callee, until: cx.after(timeout), acked_by });
        self.await_calls();
        Ok(())
    }

    /// Whether a packet was for the server. Somebody else's answer is nobody's.
    pub(super) fn take_answer(&mut self, cx: &mut Cx<'_>, from: ParticipantId, packet: &proto::DataPacket) -> bool {
        let id = match &packet.value {
            Some(Value::RpcAck(ack)) => &ack.request_id,
            Some(Value::RpcResponse(response)) => &response.request_id,
            _ => return false,
        };
        let Some(call) = self.calls.0.get_mut(id) else { return false };
        if call.callee != from {
            return true;
        }
        let Some(Value::RpcResponse(response)) = &packet.value else {
            call.acked_by = None;
            self.await_calls();
            return true;
        };
        let answer = match &response.value {
            Some(Answer::Payload(payload)) => Ok(AdminAnswer::Rpc(payload.clone())),
            Some(Answer::Error(error)) => Ok(AdminAnswer::RpcFailed(Box::new(error.clone()))),
            // An empty text may be left out on the way.
            None => Ok(AdminAnswer::Rpc(String::new())),
            Some(Answer::CompressedPayload(_)) => {
                Err(AdminError::Unavailable("the participant answered in a form it was not asked for"))
            }
        };
        cx.push(Output::Admin { id: call.question, answer });
        self.calls.0.remove(id);
        self.await_calls();
        true
    }

    /// Calls of somebody who is gone get no answer any more.
    pub(super) fn drop_calls(&mut self, cx: &mut Cx<'_>, callee: ParticipantId) {
        self.fail_calls(cx, |call| (call.callee == callee).then_some(AdminError::Unavailable("the participant left")));
    }

    /// Calls that waited for long enough.
    pub(super) fn expire_calls(&mut self, cx: &mut Cx<'_>) {
        let now = cx.mono();
        self.fail_calls(cx, |call| {
            let is_over = call.due() <= now;
            is_over.then_some(match call.acked_by {
                Some(_) => AdminError::TimedOut("the participant did not take the call in time"),
                None => AdminError::TimedOut("the participant did not answer in time"),
            })
        });
    }

    fn fail_calls(&mut self, cx: &mut Cx<'_>, why: impl Fn(&Call) -> Option<AdminError>) {
        self.calls.0.retain(|_, call| match why(call) {
            Some(error) => {
                cx.push(Output::Admin { id: call.question, answer: Err(error) });
                false
            }
            None => true,
        });
        self.await_calls();
    }

    fn await_calls(&mut self) {
        match self.calls.0.values().map(Call::due).min() {
            Some(due) => self.timers.set(Timer::Calls, due),
            None => self.timers.cancel(Timer::Calls),
        }
    }
}
