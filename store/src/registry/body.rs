//! Bodies of answers: small ones whole, with a limit; pieces of large ones, with patience.

use bytes::{Bytes, BytesMut};
use reqwest::Response;

use super::error::{ErrorKind, RegistryError, from_answer, redact};
use super::transport::{SILENCE_TIMEOUT, broken};

/// Most bytes that are read of the body of a refusal.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;

/// The whole body, if it has no more than `limit` bytes.
pub(crate) async fn read_limited(
    mut response: Response,
    limit: usize,
) -> Result<Bytes, RegistryError> {
    let too_large = |response: &Response| {
        let detail = format!("{} answers with more than {limit} bytes", redact(response.url()));
        RegistryError::new(ErrorKind::TooLarge, detail)
    };
    if response.content_length().is_some_and(|it| it > limit as u64) {
        return Err(too_large(&response));
    }
    let mut body = BytesMut::new();
    while let Some(piece) = next_piece(&mut response).await? {
        if body.len() + piece.len() > limit {
            return Err(too_large(&response));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// The next piece of a body; none at its end.
pub(crate) async fn next_piece(response: &mut Response) -> Result<Option<Bytes>, RegistryError> {
    match tokio::time::timeout(SILENCE_TIMEOUT, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(error)) => Err(broken(&error, response.url())),
        Err(_) => {
            let host = response.url().host_str().unwrap_or("?");
            let detail = format!("{host} is silent for {} s", SILENCE_TIMEOUT.as_secs());
            Err(RegistryError::new(ErrorKind::Unreachable, detail))
        }
    }
}

/// The error for an answer whose status is not the expected one.
pub(crate) async fn refusal(mut response: Response) -> RegistryError {
    let mut body = BytesMut::new();
    while body.len() < MAX_REFUSAL_BYTES
        && let Ok(Some(piece)) = next_piece(&mut response).await
    {
        let room = MAX_REFUSAL_BYTES - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
    }
    from_answer(response.url(), response.status().as_u16(), &body)
}
