//! The promises in the words of the owner, who asks `semel verify` and has not read the contract.

/// What the predicate `id` promises, for an owner; none for one that only a test with ground truth can ask.
pub(super) fn of(id: &str) -> Option<&'static str> {
    let words = match id {
        "M1" => "every booking sums to zero in each currency",
        "M2" => "every customer's balance is the sum of what was booked on it",
        "M3" => "no balance ever went below its floor: customers never owe",
        "M4" => "no payment, sale or refund is booked twice",
        "M5" => "no payment gave back more than came in",
        "M7" => "every payout is held once and ends once",
        "M9" => "orders called paid have their money, and unpaid ones have not",
        "G2" => "every notice of a provider counts once",
        "G3" => "every notice was dealt with, and an ignored one says why",
        "G4" => "no notice of unproven origin moved anything",
        "G5" => "the history of every order and payment is without gaps",
        "G5s" => "every order, payment and message stands where its history says",
        "D1" => "nothing was handed out twice for one item of an order",
        "D2" => "no unit of stock has two buyers",
        "D3" => "finished orders got all that was ordered, or the money for it back",
        "D4" => "no goods were handed out before payment",
        "D5" => "every buyer got the very goods that were put aside for the order",
        "T4" => "no message waits for ever",
        "T6" => "no recipient of a broadcast was left out",
        "J1" => "no two workers ever held the same work at once",
        "J2" => "work that was taken over got a higher number each time",
        "J3" => "nobody acted on work that somebody else had taken over",
        "J4" => "every job was done once",
        "J5" => "no job is called running that nobody runs",
        "J6" => "work was given back by who held it, ran out or was taken over, nothing else",
        "J7" => "no job was forgotten",
        "J8" => "no job was tried more often than allowed",
        "E2" => "every call to the outside has an outcome, even if it is \"nobody told us\"",
        "N1" => "no two VPN connections share an address",
        "N2" => "no two VPN connections share a key",
        "N5" => "who paid for the VPN has access, and nobody else",
        "N6" => "an address of the VPN rests before somebody else gets it",
        "S1" => "the chain of audit records is whole",
        _ => return None,
    };
    Some(words)
}
