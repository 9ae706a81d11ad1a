if x then module:depends("nowhere"); end
module:depends("two");
