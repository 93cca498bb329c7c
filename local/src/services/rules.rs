//! Service addresses on a node: for connections of programs outside the mesh, as kube-proxy would. The
//! mesh's planes resolve services themselves and never meet these rules.

use std::net::IpAddr;

use nlink::Connection;
use nlink::Nftables;
use nlink::netlink::nftables::{
    BaseChain, Chain, ChainName, CmpOp, Expr, Family, Field, Match, NatHook, NatStatement, NumgenKind,
    Priority, Register, Rule, Stmt, Transaction, Verdict,
};

use super::{PortView, ServiceView};
use crate::mesh::{Mesh, Node};

/// The table.
const TABLE: &str = "trefoil_local_services";

/// Replaces the rules of a node, in one transaction.
pub(crate) async fn install(mesh: &Mesh, node: Node, services: &[ServiceView]) -> anyhow::Result<()> {
    let connection = Connection::<Nftables>::new_in(mesh.node_netns(node).as_str())?;
    let tables = connection.list_tables_in(Family::Inet).await?;
    let mut transaction = connection.transaction();
    if tables.iter().any(|table| table.name == TABLE) {
        transaction = transaction.del_table(TABLE, Family::Inet);
    }
    transaction = transaction
        .add_table(TABLE, Family::Inet)
        .add_chain(Chain::new(TABLE, "services")?.family(Family::Inet));
    for (name, hook, priority) in [
        ("prerouting", NatHook::Prerouting, Priority::DstNat),
        ("output", NatHook::Output, Priority::DstNat),
    ] {
        let chain = Chain::new(TABLE, name)?
            .family(Family::Inet)
            .base(BaseChain::nat(hook, priority));
        let jump = Rule::new(TABLE, name)
            .family(Family::Inet)
            .then(Verdict::JumpTo(ChainName::new("services")?));
        transaction = transaction.add_chain(chain).add_rule(jump);
    }
    let postrouting = BaseChain::nat(NatHook::Postrouting, Priority::SrcNat);
    transaction = transaction.add_chain(
        Chain::new(TABLE, "postrouting")?
            .family(Family::Inet)
            .base(postrouting),
    );
    for service in services {
        transaction = add_service(transaction, service);
    }
    transaction.commit(&connection).await?;
    Ok(())
}

fn add_service(mut transaction: Transaction, service: &ServiceView) -> Transaction {
    for address in &service.addresses {
        let endpoints: Vec<IpAddr> = service
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.ready && endpoint.address.is_ipv6() == address.is_ipv6())
            .map(|endpoint| endpoint.address)
            .collect();
        for port in &service.ports {
            for (index, endpoint) in endpoints.iter().enumerate() {
                let left = endpoints.len() - index;
                transaction = transaction.add_rule(translate(*address, port, *endpoint, left));
            }
        }
        for endpoint in &endpoints {
            transaction = transaction.add_rule(hairpin(*endpoint));
        }
    }
    transaction
}

/// One of `left` endpoints, by chance.
fn translate(address: IpAddr, port: &PortView, endpoint: IpAddr, left: usize) -> Rule {
    let field = if address.is_ipv4() {
        Field::Ip4Daddr
    } else {
        Field::Ip6Daddr
    };
    let mut rule = Rule::new(TABLE, "services")
        .family(Family::Inet)
        .then(Match::eq(field, address))
        .then(Match::eq(Field::TcpDport, port.port));
    if left > 1 {
        let modulus = u32::try_from(left).unwrap_or(u32::MAX);
        rule = rule
            .then(Expr::Numgen {
                dreg: Register::R0,
                kind: NumgenKind::Random,
                modulus,
                offset: 0,
            })
            .then(Expr::Cmp {
                sreg: Register::R0,
                op: CmpOp::Eq,
                data: 0_u32.to_ne_bytes().to_vec(),
            });
    }
    rule.then(Stmt::Nat(NatStatement::dnat(endpoint).port(port.target)))
}

/// A pod that reaches itself through a service must see another source, or it answers itself directly.
fn hairpin(endpoint: IpAddr) -> Rule {
    let (source, destination) = if endpoint.is_ipv4() {
        (Field::Ip4Saddr, Field::Ip4Daddr)
    } else {
        (Field::Ip6Saddr, Field::Ip6Daddr)
    };
    Rule::new(TABLE, "postrouting")
        .family(Family::Inet)
        .then(Match::eq(source, endpoint))
        .then(Match::eq(destination, endpoint))
        .then(Stmt::Nat(NatStatement::masquerade()))
}
