//! Routes as the control plane says them, into the table. What is not understood is refused, and leaves the last
//! good version where it is.

use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::trefoil::v1::HttpRoute;
use trefoil_api::proto::type_url;
use trefoil_dataplane_state::state::{Consumer, Refusal, decode};

use super::{CompiledRoute, Routes, compile};

impl Consumer for Routes {
    fn apply(&self, response: &DeltaDiscoveryResponse) -> Vec<Refusal> {
        for name in &response.removed_resources {
            self.remove(name);
        }
        let mut refusals = Vec::new();
        for resource in &response.resources {
            match route(resource) {
                Ok(route) => self.insert(route),
                Err(problem) => refusals.push(Refusal {
                    name: resource.name.clone(),
                    problem,
                }),
            }
        }
        refusals
    }
}

/// Removal goes by the name, so a route must have the name that its content says.
fn route(resource: &Resource) -> Result<CompiledRoute, String> {
    let message: HttpRoute =
        decode(resource, type_url::HTTP_ROUTE).map_err(|malformed| malformed.to_string())?;
    let route = compile(&message).map_err(|invalid| invalid.to_string())?;
    match route.name() == resource.name {
        true => Ok(route),
        false => Err(format!(
            "name: is {:?}, its content says {:?}",
            resource.name,
            route.name()
        )),
    }
}
