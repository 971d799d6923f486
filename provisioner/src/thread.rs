//! Work that may wait for a device, on a thread of its own: the runtime has one, and it must go on.

use imgstream::error::{Error, Result};

/// Does `work` elsewhere. `does` says what the thread does, for the error that tells of its death.
///
/// # Errors
/// Those of `work`; `Device` when its thread died.
pub(crate) async fn apart<T: Send + 'static>(
    does: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let ended = tokio::task::spawn_blocking(work).await;
    ended.unwrap_or_else(|error| Err(Error::device(format!("the thread that {does} died: {error}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_of_it_is_handed_on_and_a_death_is_an_error() {
        assert_eq!(apart("counts", || Ok(7)).await.unwrap(), 7);
        assert_eq!(apart::<()>("asks", || Err(Error::target("no"))).await.unwrap_err().to_string(), "no");
        let died = apart::<()>("asks", || panic!("a defect")).await.unwrap_err();
        assert!(died.to_string().starts_with("the thread that asks died"), "{died}");
    }
}
