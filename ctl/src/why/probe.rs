//! A real connection, made by the planes when they are asked for one: by the client's, the whole way; for a
//! client without a plane, by the server's, from where it would arrive. No byte is sent.

use trefoil_api::question::{Arriving, Leaving, Probed};

use crate::planes::{Plane, Planes};

/// By the client's plane.
pub(super) async fn leave(planes: &Planes, plane: &Plane, question: &Leaving) -> anyhow::Result<Probed> {
    plane
        .question(planes, "POST", &format!("probe?{}", question.query()))
        .await
}

/// By the server's plane.
pub(super) async fn arrive(planes: &Planes, plane: &Plane, question: &Arriving) -> anyhow::Result<Probed> {
    plane
        .question(planes, "POST", &format!("reach?{}", question.query()))
        .await
}
